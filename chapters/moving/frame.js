"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);

/* An element with its attributes, inside of another. */
function add(parent, tag, attributes = {}, text = "") {
    const element = parent.appendChild(document.createElement(tag));
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
}

/* Let a button play a slider from where it stands, or from its start again; while it plays, nothing is read aloud. */
function playable(button, slider, pause, says) {
    const name = button.textContent;
    let timer = null;
    function stop() {
        clearInterval(timer);
        timer = null;
        button.textContent = name;
        says.setAttribute("aria-live", "polite");
    }
    function step() {
        if (+slider.value < +slider.max) move(slider, +slider.value + 1);
        if (+slider.value >= +slider.max) stop();
    }
    button.addEventListener("click", () => {
        if (timer !== null) return stop();
        if (+slider.value >= +slider.max) move(slider, 0);
        says.setAttribute("aria-live", "off");
        button.textContent = "Pause";
        timer = setInterval(step, pause);
    });
}

/* Set a slider as a hand would. */
function move(slider, value) {
    slider.value = value;
    slider.dispatchEvent(new Event("input"));
}

/* One tab stop for a group of buttons, in rows of so many; the arrow keys go from one to the next. */
function roving(buttons, columns) {
    const steps = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns};
    buttons.forEach((button, k) => {
        button.tabIndex = k ? -1 : 0;
        button.addEventListener("focus", () => buttons.forEach(other => { other.tabIndex = other === button ? 0 : -1; }));
        button.addEventListener("keydown", event => {
            const next = buttons[k + steps[event.key]];
            if (event.key in steps) event.preventDefault();
            if (next) next.focus();
        });
    });
}
