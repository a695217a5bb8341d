const side = data.picture.length, places = side - 2;  // along one side of the picture, and of the output
const slider = at("place"), visited = new Set();
const tables = ["under", "weights", "products"].map(id => cellsOf(at(id)));
let kernel, place;  // the number of an output, row by row

function cellsOf(table) {
    return [0, 1, 2].flatMap(() => {
        const row = add(table, "tr");
        return [0, 1, 2].map(() => add(row, "td"));
    });
}

/* Products of the window whose output is that one, in reading order. */
function productsAt(number) {
    const top = Math.floor(number / places), left = number % places;
    return kernel.weights.flatMap((row, u) => row.map((weight, v) => weight * data.picture[top + u][left + v]));
}

const added = numbers => numbers.reduce((a, b) => a + b, 0);
const outputAt = number => added(productsAt(number)) / kernel.divisor;
const signed = () => kernel.divisor === 1;

/* Grey of a number without a sign; else white is 0. */
function colour(value, largest, hasSign) {
    const share = value / largest, end = share < 0 ? data.orange : data.purple;
    return [0, 1, 2].map(c => Math.round(hasSign ? 255 + Math.abs(share) * (end[c] - 255) : 255 * share));
}

function paint(canvas, width, numbers, colourOf) {
    canvas.width = canvas.height = width;
    const image = new ImageData(width, width);
    for (const k of numbers) image.data.set([...colourOf(k), 255], 4 * k);
    canvas.getContext("2d").putImageData(image, 0, 0);
}

function fill(cells, values, colourOf) {
    cells.forEach((cell, k) => {
        cell.textContent = String(values[k]).replace("-", "−");
        const [red, green, blue] = colourOf(values[k]);
        cell.style.background = `rgb(${red} ${green} ${blue})`;
        cell.style.color = 0.3 * red + 0.6 * green + 0.1 * blue > 128 ? "#000" : "#fff";
    });
}

function put(frame, row, column, size, whole) {
    frame.style.cssText = `top: ${100 * row / whole}%; left: ${100 * column / whole}%; ` +
        `width: ${100 * size / whole}%; height: ${100 * size / whole}%`;
}

function show() {
    const row = Math.floor(place / places), column = place % places;
    const numbers = data.picture.slice(row, row + 3).flatMap(line => line.slice(column, column + 3));
    const products = productsAt(place), sum = added(products);
    slider.value = place;
    slider.setAttribute("aria-valuetext", `row ${row + 1}, column ${column + 1}`);
    put(at("input").querySelector(".window"), row, column, 3, side);
    put(at("output").querySelector(".window"), row, column, 1, places);
    fill(tables[0], numbers, value => colour(value, data.white, false));
    fill(tables[1], kernel.weights.flat(), value => colour(value, 8, true));
    fill(tables[2], products, value => colour(value, 36, true));
    const canvas = at("output").querySelector("canvas");
    paint(canvas, places, visited, k => colour(outputAt(k), kernel.largest, signed()));
    canvas.setAttribute("aria-label", `The output: ${visited.size} of ${places * places} numbers are computed.`);
    const shown = String(Math.round(10 * outputAt(place)) / 10).replace("-", "−");
    at("total").textContent = String(sum).replace("-", "−");
    at("says").textContent = `Row ${row + 1}, column ${column + 1} of the output: the nine products add up to ` +
        `${at("total").textContent}` + (signed() ? "." : `. Divided by ${kernel.divisor}, that is ${shown}.`);
}

function go(to) {
    place = to;
    visited.add(place);
    show();
}

function choose(number) {
    kernel = data.kernels[number];
    at("finds").textContent = kernel.finds;
    show();
}

function point(event) {
    const box = at("input").getBoundingClientRect();
    const [row, column] = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width].map(
        share => Math.min(places - 1, Math.max(0, Math.floor(share * side) - 1)));
    go(row * places + column);
}

data.kernels.forEach(({name}, k) => add(at("kernel"), "option", {value: k}, name));
slider.max = places * places - 1;
paint(at("input").querySelector("canvas"), side, Array(side * side).keys(),
    k => colour(data.picture[Math.floor(k / side)][k % side], data.white, false));
at("kernel").addEventListener("change", event => choose(event.target.value));
at("input").addEventListener("pointermove", point);
at("input").addEventListener("pointerdown", point);
slider.addEventListener("input", () => {
    const to = +slider.value;
    for (let k = place; k < to; k++) visited.add(k);  // forwards, it slides over them; backwards it jumps
    go(to);
});
slider.addEventListener("keydown", event => {
    const to = place + {ArrowUp: -places, ArrowDown: places}[event.key];
    if (event.key === "ArrowUp" || event.key === "ArrowDown") event.preventDefault();
    if (to >= 0 && to < places * places) go(to);
});
at("fill").addEventListener("click", () => {
    for (let k = 0; k < places * places; k++) visited.add(k);
    show();
});
at("again").addEventListener("click", () => {
    visited.clear();
    go(0);
});
playable(at("slide"), slider, 80, at("says"));
place = 0;
visited.add(0);
choose(0);
