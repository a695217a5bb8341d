const slider = at("time");

function digits(value) {
    return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toPrecision(3);
}

function told(ratio) {
    if (ratio > 1.2) return `the signal has ${digits(ratio)} times the variance of the noise`;
    if (ratio < 1 / 1.2) return `the noise has ${digits(1 / ratio)} times the variance of the signal`;
    return "signal and noise have about the same variance";
}

function show() {
    const {t, bar, picture, latents} = data.frames[slider.value], ratio = bar / (1 - bar);
    at("picture").src = picture;
    at("picture").alt = `The decoded picture at t = ${t}; at t = 0 it is a green triangle above a blue circle.`;
    at("latents").src = latents;
    at("latents").alt = `The four channels of the latents at t = ${t}, in grey.`;
    at("t").textContent = t;
    at("bar").textContent = digits(bar);
    at("signal-level").textContent = digits(Math.sqrt(bar));
    at("noise-level").textContent = digits(Math.sqrt(1 - bar));
    at("ratio").textContent = digits(ratio);
    at("signal").style.width = `${100 * bar}%`;
    at("says").textContent = `At t = ${t}, ${told(ratio)}.`;
    slider.setAttribute("aria-valuetext", `t = ${t}`);
}

slider.max = data.frames.length - 1;
slider.addEventListener("input", show);
playable(at("play"), slider, 150, at("says"));
show();
