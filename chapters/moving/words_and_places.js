const {tokens, weights} = data;  // weights[place][token]
const largest = Math.max(...weights.flat());
const places = weights.map((_, k) => add(at("picture").querySelector(".places"), "button", {type: "button",
    "aria-label": `row ${Math.floor(k / 4) + 1}, column ${k % 4 + 1}`}));
const map = weights.map(() => add(at("map"), "div"));
const buttons = tokens.map(token => {
    const isMark = ["BOS", "EOS", "padding"].includes(token);
    const button = add(at("tokens"), "button", {type: "button", "class": isMark ? "mark" : ""});
    add(button, "span", {}, token);
    add(add(button, "span", {"class": "meter"}), "span");
    add(button, "small");
    return button;
});

const percent = share => `${Math.round(100 * share)} %`;
const named = place => `row ${Math.floor(place / 4) + 1}, column ${place % 4 + 1}`;
const mean = numbers => numbers.reduce((a, b) => a + b, 0) / numbers.length;
const columnOf = token => weights.map(row => row[token]);
const largestIn = numbers => numbers.indexOf(Math.max(...numbers));

/* Under each token its share, which is a number from 0 to 1. */
function meters(shares) {
    buttons.forEach((button, k) => {
        button.querySelector(".meter span").style.width = `${100 * shares[k] / largest}%`;
        button.querySelector("small").textContent = percent(shares[k]);
    });
}

function pressed(token) {
    buttons.forEach((button, k) => button.setAttribute("aria-pressed", k === token));
}

function showToken(token) {
    const column = columnOf(token), most = largestIn(column), all = mean(column);
    pressed(token);
    meters(tokens.map((_, k) => mean(columnOf(k))));
    places.forEach((place, k) => { place.style.opacity = 0.85 * (1 - column[k] / column[most]); });
    at("frame").hidden = true;
    map.forEach((cell, k) => {
        const share = column[k] / largest, [red, green, blue] = data.blue.map(c => Math.round(255 + share * (c - 255)));
        cell.textContent = percent(column[k]);
        cell.style.background = `rgb(${red} ${green} ${blue})`;
        cell.style.color = share > 0.5 ? "#fff" : "#000";
    });
    at("map").setAttribute("aria-label", `The map of “${tokens[token]}”, row by row: ${column.map(percent).join(", ")}.`);
    at("lit").textContent = "the picture: the brighter a place, the more it looks at the token";
    at("mapped").textContent = `the map of “${tokens[token]}”, one scale for all tokens`;
    at("says").textContent = `“${tokens[token]}” gets ${percent(all)} of all weight. The place at ${named(most)} looks ` +
        `at it most, with ${percent(column[most])}.`;
}

function showPlace(place) {
    const row = weights[place], most = largestIn(row);
    showToken(most);
    meters(row);
    places.forEach(other => { other.style.opacity = 0; });
    at("frame").hidden = false;
    at("frame").style.top = `${25 * Math.floor(place / 4)}%`;
    at("frame").style.left = `${25 * (place % 4)}%`;
    at("lit").textContent = `the picture, with the place at ${named(place)}`;
    at("says").textContent = `The place at ${named(place)} looks most at “${tokens[most]}”, with ${percent(row[most])}. ` +
        "Under each token you see the weight that it gets from this place.";
}

function listen(elements, show) {
    elements.forEach((element, k) => {
        for (const event of ["pointerenter", "focus", "click"]) element.addEventListener(event, () => show(k));
    });
}

at("picture").querySelector("img").src = data.picture;
roving(places, 4);
roving(buttons, 1);
listen(places, showPlace);
listen(buttons, showToken);
showToken(tokens.indexOf("red"));
