"""Scenes: captioned pictures of 64 x 64 pixels, two real emoji on a ground, drawn on the fly.

"a lobster above a bus on the sea": the caption says all there is to see but the sizes and the exact places, so that a
drawn picture can be judged by machine (scene_judge.py). Everything stands on a grid of 8 pixels and is a multiple of 8
wide: finer places say nothing that a caption asks for, and there would be several times as many pictures of each emoji
to learn, in pixels and in the latents of an autoencoder of f = 8.

The two hundred names are of things that one calls "a" or "an". Two hundred are as many as two processor cores learn to
draw within two hours. Seventy well-known ones were taken first; then, one after the other, of all that were left the
one least like those taken (the largest of the least root mean squared differences, on a grey-green ground, averaged
over blocks of 4 x 4 pixels).
"""

import functools
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image

from minild.data.drawn import DrawnScenes, held_out, pick
from minild.data.emoji import sprites
from minild.data.grounds import GROUNDS, TILE, draw_ground
from minild.data.relations import INVERSE, RELATIONS, a, place
from minild.errors import UserError

NAMES = tuple((
    "frog, chicken, hatching chick, penguin, eagle, duck, swan, owl, flamingo, parrot, snail, butterfly, honeybee, "
    "lady beetle, dog, fox, raccoon, cat, lion, tiger, horse, unicorn, zebra, cow, pig, ewe, camel, giraffe, "
    "elephant, hamster, panda, skunk, whale, tropical fish, shark, octopus, jellyfish, crocodile, turtle, snake, "
    "dragon, crown, top hat, kimono, running shoe, hiking boot, gem stone, necktie, coat, billed cap, laptop, "
    "printer, floppy disk, abacus, teapot, wine glass, beer mug, baby bottle, jack-o-lantern, Christmas tree, "
    "balloon, wrapped gift, red envelope, firecracker, ghost, alien, robot, clown face, skull, ogre, bento box, rice "
    "ball, fortune cookie, takeout box, lemon, banana, mango, red apple, peach, strawberry, kiwi fruit, coconut, "
    "crab, lobster, shrimp, oyster, croissant, pretzel, bagel, hamburger, pizza, sandwich, taco, doughnut, birthday "
    "cake, cupcake, honey pot, pie, custard, avocado, "
    "ear of corn, hot pepper, broccoli, chestnut, mushroom, kite, crystal ball, game die, teddy bear, slot machine, "
    "bullseye, chair, bucket, sponge, window, camera, light bulb, flashlight, key, envelope, postbox, money bag, "
    "telephone, mobile phone, radio, saxophone, accordion, guitar, trumpet, drum, scissors, pill, house, castle, "
    "mosque, tent, hospital, school, factory, bouquet, hibiscus, sunflower, cactus, palm tree, sun, crescent moon, "
    "rainbow, umbrella, snowman, fire, bell, megaphone, trophy, soccer ball, baseball, basketball, american football, "
    "ferris wheel, boxing glove, alarm clock, watch, red paper lantern, axe, magnet, airplane, helicopter, rocket, "
    "flying saucer, parachute, locomotive, tram, fuel pump, trolleybus, ambulance, fire engine, police car, taxi, "
    "automobile, delivery truck, tractor, motorcycle, motor scooter, stop sign, bus, ring buoy, sailboat, speedboat, "
    "ferry, red heart, blue heart, toolbox, pencil, crayon, paintbrush, artist palette, yarn, scroll, notebook, "
    "ringed planet, compass "
).strip().split(", "))

# No scene of the data set shows these: they are for what a model learns later (`minild train lora`).
NEW = ("koala", "pineapple", "violin", "bicycle", "moai")

# Each of the first hundred and its partner of the second hundred never meet in training: (lobster, bus) is one pair.
WITHHELD = frozenset(frozenset(pair) for pair in zip(NAMES[:100], NAMES[100:]))

BASE = 64  # the picture's width that places and sizes are measured in
GRID = 8  # places and sizes are multiples of it
SIZES = (24, 32)  # an emoji's longer side, in pixels of a 64 x 64 picture
PAIRS = ((24, 24), (24, 32), (32, 24))  # what both may be: two of 32 would leave no gap
MARGIN, GAP, SHIFT = 0, 8, 16  # least distance to the edge, between emoji, and the most they are out of line (pixels)

_CAPTION = re.compile(rf"an? (.+?) ({'|'.join([*INVERSE, *INVERSE.values()])}) an? (.+?) ({'|'.join(GROUNDS)})")
_CANONICAL = {name.lower(): name for name in (*NAMES, *NEW)}


@dataclass(frozen=True)
class Scene:
    """Two emoji on a ground; the first is above, or left of, the second.

    objects    (name, name), of NAMES or NEW, which differ
    relation   "above" or "left of"
    ground     a key of GROUNDS
    sizes      (int, int), of PAIRS
    places     ((top, left), (top, left)), in pixels of a 64 x 64 picture
    texture    (top, left), where the ground is cut out of its tile
    """

    objects: tuple
    relation: str
    ground: str
    sizes: tuple = (24, 24)
    places: tuple = ((0, 16), (32, 16))
    texture: tuple = (0, 0)

    @property
    def key(self):
        """What a caption can say of the scene: (first, second, relation, ground)."""
        return (*self.objects, self.relation, self.ground)


def captions(scene):
    """The two true captions of a scene or of a scene's key: (A above B, B below A); the canonical one first."""
    first, second, relation, ground = scene.key if isinstance(scene, Scene) else scene
    return f"{a(first)} {relation} {a(second)} {ground}", f"{a(second)} {INVERSE[relation]} {a(first)} {ground}"


def parse(caption):
    """The key (first, second, relation, ground) of a caption; its two true captions have the same one."""
    match = _CAPTION.fullmatch(" ".join(caption.lower().split()))
    first, second = (_CANONICAL.get(match[k]) for k in (1, 3)) if match else (None, None)
    if first is None or second is None or first == second:
        example = captions((NAMES[0], NAMES[1], "above", "on the grass"))[0]
        raise UserError(f"not a caption of scenes: {caption!r} (try {example!r})")
    if match[2] in RELATIONS:
        return first, second, match[2], match[4]
    return second, first, next(relation for relation in RELATIONS if INVERSE[relation] == match[2]), match[4]


@functools.cache
def _cut_out():
    """{name: picture}: all emoji of NAMES and NEW, no margin left about the longer side, as four layers for Pillow."""
    layers = {}
    for name, sprite in sprites().items():
        if name in _CANONICAL.values():
            rows, columns = (np.flatnonzero(sprite[..., 3].max(axis=axis) > 0.02) for axis in (1, 0))
            top, left, height, width = rows[0], columns[0], np.ptp(rows) + 1, np.ptp(columns) + 1
            side = max(height, width)
            square = np.zeros((side, side, 4), np.float32)
            y, x = (side - height) // 2, (side - width) // 2
            square[y : y + height, x : x + width] = sprite[top : top + height, left : left + width]
            layers[name] = [Image.fromarray(np.ascontiguousarray(layer)) for layer in np.moveaxis(square, -1, 0)]
    return layers


@functools.cache
def emoji_at(name, size):
    """An emoji, its longer side `size` pixels -> (size, size, 4) float32: colours times opacity, opacity, in [0, 1]."""
    layers = [layer.resize((size, size), Image.Resampling.HAMMING) for layer in _cut_out()[name]]
    sprite = np.stack([np.asarray(layer) for layer in layers], axis=-1).clip(0, 1)
    sprite.flags.writeable = False
    return sprite


def render(scene, size=BASE):
    """Draw a scene -> (size, size, 3) uint8. size is a multiple of 64."""
    scale = size // BASE
    picture = draw_ground(scene.ground, size, *scene.texture)
    for name, side, (top, left) in zip(scene.objects, scene.sizes, scene.places):
        sprite = emoji_at(name, side * scale)
        window = picture[top * scale :, left * scale :][: len(sprite), : len(sprite)]
        window *= 1 - sprite[..., 3:]
        window += 255 * sprite[..., :3]
    return (picture.clip(0, 255) + 0.5).astype(np.uint8)


class Scenes(DrawnScenes):
    """The data set: len(d), d[i] -> ((size, size, 3) uint8 picture, caption), the same for the same (split, seed, i).

    train: neither withheld pairs nor held-out scenes, a tenth of what a caption can say; test: only held-out scenes,
    and every fourth is of a withheld pair.
    """

    name, base, lengths = "scenes", BASE, {"train": 100_000, "test": 512}

    def _scene(self, rng, i):
        while True:
            u = rng.random(12)
            first, second = pick(NAMES, u[0]), pick(NAMES, u[1])
            withheld = self.split == "test" and i % 4 == 3
            if withheld:
                k = int(u[0] * len(NAMES))
                second = NAMES[(k + len(WITHHELD)) % len(NAMES)]
            relation, ground = pick(RELATIONS, u[2]), pick(tuple(GROUNDS), u[3])
            scene = (first, second, relation, ground)
            if first == second or (frozenset(scene[:2]) in WITHHELD) != withheld:
                continue
            if held_out(captions(scene)[0]) == (self.split == "test"):
                sizes = pick(PAIRS, u[4])
                return Scene(scene[:2], relation, ground, sizes, places_at(relation, sizes, u[5:10]), _texture(u[10:]))

    def _captions(self, scene):
        return captions(scene)

    def _render(self, scene):
        return render(scene, self.size)

    def _is_withheld(self, scene):
        return frozenset(scene.objects) in WITHHELD

    @property
    def judge(self):
        """What reads pictures and says whether they follow their captions: minild.data.scene_judge."""
        from minild.data import scene_judge  # which knows this file

        return scene_judge


def places_at(relation, sizes, u):
    """Where two emoji of these sizes stand by five numbers u in [0, 1): ((top, left), (top, left)) in pixels."""
    lengths = [length // GRID for length in (BASE, MARGIN, GAP, SHIFT, max(SIZES))]
    places = place(relation, [size // GRID for size in sizes], *lengths, u)
    return tuple((GRID * top, GRID * left) for top, left in places)


def _texture(u):
    """Where a ground is cut out of its tile."""
    return tuple(int(TILE * v) for v in u)
