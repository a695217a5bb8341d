"""A page to play with a model, in the browser: `minild playground`.

asked.py says what is drawn from what the page holds, live.py draws it while somebody looks on, html.py shows it: none
of them knows gradio. page.py puts gradio's widgets around them.
"""
