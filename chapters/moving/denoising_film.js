const slider = at("step"), steps = data.times.length;
const rows = {seen: "the noisy latents, decoded", guessed: "the guess of the clean latents, decoded"};
const images = [];  // {image, film, row}

for (const film of data.films) {
    add(at("films"), "h2", {}, film.scale === 1 ? "s = 1: the caption alone" : `s = ${film.scale}: with guidance`);
}
for (const [row, caption] of Object.entries(rows)) {
    for (const film of data.films) {
        const figure = add(at("films"), "figure");
        const image = add(add(figure, "div", {"class": "picture"}), "img", {id: `${row}-${film.scale}`});
        add(figure, "figcaption", {}, caption);
        images.push({image, film, row});
    }
}

function show() {
    const step = +slider.value, when = step === 1 ? "1 step" : `${step} steps`;
    for (const {image, film, row} of images) {
        image.src = film[row][step];
        image.alt = `With s = ${film.scale}, after ${when}: ${rows[row]}.`;
    }
    at("says").textContent = step === steps ? `After all ${steps} steps: the picture is done.` :
        `After ${step} of ${steps} steps. Next, the U-Net guesses the noise at t = ${data.times[step]}.`;
    slider.setAttribute("aria-valuetext", when);
}

slider.max = steps;
slider.addEventListener("input", show);
playable(at("play"), slider, 400, at("says"));
show();
