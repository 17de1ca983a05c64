"""The stories of the word problems: text with slots, ranges of numbers, worked steps.

Slots: {name} {he} {He} {his} (the first person), {friend} (another person), {things} (countable objects), {day},
{place}, and one letter per number. SolutionStep("x = a + b", "In total", "apples") is the sentence
"In total a + b = x apples."
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GIRLS = (
    "Anna", "Beth", "Clara", "Dora", "Emma", "Fay", "Grace", "Hana", "Ida", "Jane", "Kate", "Lily", "Maria", "Nina",
    "Olga", "Paula", "Rosa", "Sara", "Tina", "Zoe",
)  # fmt: skip
BOYS = (
    "Adam", "Ben", "Carl", "Dan", "Eric", "Finn", "George", "Hugo", "Ivan", "Jack", "Karim", "Leo", "Mark", "Noah",
    "Omar", "Paul", "Ryan", "Sam", "Tom", "Victor",
)  # fmt: skip
THINGS = (
    "apples", "pears", "plums", "oranges", "cookies", "cakes", "eggs", "nuts", "books", "pencils", "stamps", "cards",
    "marbles", "shells", "coins", "stickers", "balls", "beads", "flowers", "stones",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PLACES = ("market", "shop", "school", "farm", "park", "library")


@dataclass(frozen=True)
class SolutionStep:
    """One line of a solution: `formula` is "result = left operator right"."""

    formula: str
    before: str
    after: str


@dataclass(frozen=True)
class Template:
    """A family of problems; the last step's result is the answer. Ranges include both ends."""

    name: str
    story: str
    ranges: Mapping[str, tuple[int, int]]
    steps: tuple[SolutionStep, ...]


TEMPLATES = (
    Template(
        "gain_loss",
        "{name} has {a} {things}. {He} buys {b} more {things} at the {place} and then gives {c} of them to {friend}. "
        "How many {things} does {name} have left?",
        {"a": (5, 40), "b": (3, 30), "c": (2, 20)},
        (
            SolutionStep("x = a + b", "After buying more, {name} has", "{things}"),
            SolutionStep("y = x - c", "After the gift, {name} has", "{things} left"),
        ),
    ),
    Template(
        "boxes_plus",
        "{name} has {a} boxes with {b} {things} in each box. {He} also has {c} loose {things}. "
        "How many {things} does {name} have in all?",
        {"a": (2, 9), "b": (2, 10), "c": (2, 20)},
        (
            SolutionStep("x = a * b", "The boxes hold", "{things}"),
            SolutionStep("y = x + c", "With the loose ones {he} has", "{things}"),
        ),
    ),
    Template(
        "more_than",
        "{name} has {a} {things}. {friend} has {b} more {things} than {name}. "
        "How many {things} do they have together?",
        {"a": (2, 45), "b": (2, 30)},
        (
            SolutionStep("x = a + b", "{friend} has", "{things}"),
            SolutionStep("y = a + x", "Together they have", "{things}"),
        ),
    ),
    Template(
        "fewer_than",
        "On {day} {name} counted {a} {things}. {friend} counted {b} fewer {things} than {name}. "
        "How many {things} did the two of them count?",
        {"a": (12, 50), "b": (2, 30)},
        (
            SolutionStep("x = a - b", "{friend} counted", "{things}"),
            SolutionStep("y = a + x", "Both of them counted", "{things}"),
        ),
    ),
    Template(
        "times_as_many",
        "{name} found {a} {things} at the {place}. {friend} found {b} times as many {things}. "
        "How many more {things} did {friend} find than {name}?",
        {"a": (2, 40), "b": (2, 9)},
        (
            SolutionStep("x = a * b", "{friend} found", "{things}"),
            SolutionStep("y = x - a", "The difference is", "{things}"),
        ),
    ),
    Template(
        "shopping",
        "{name} buys {a} {things} for {b} dollars each and a bag for {c} dollars. "
        "How many dollars does {he} spend?",
        {"a": (2, 9), "b": (2, 9), "c": (2, 20)},
        (
            SolutionStep("x = a * b", "The {things} cost", "dollars"),
            SolutionStep("y = x + c", "With the bag {he} spends", "dollars"),
        ),
    ),
    Template(
        "change",
        "{name} pays for {a} {things} that cost {b} dollars each. {He} had {c} dollars in {his} pocket. "
        "How much money is left?",
        {"a": (2, 9), "b": (2, 9), "c": (20, 99)},
        (
            SolutionStep("x = a * b", "{name} pays", "dollars"),
            SolutionStep("y = c - x", "{He} keeps", "dollars"),
        ),
    ),
    Template(
        "sharing",
        "{name} and {his} friends have {a} {things} and get {b} more from {friend}. "
        "They share all the {things} equally among {c} people. How many {things} does each person get?",
        {"a": (4, 50), "b": (2, 40), "c": (2, 9)},
        (
            SolutionStep("x = a + b", "There are", "{things} to share"),
            SolutionStep("y = x / c", "Each person gets", "{things}"),
        ),
    ),
    Template(
        "eaten_packs",
        "{name} picks {a} {things} and loses {b} of them on the way to the {place}. "
        "{He} puts the rest into bags of {c}. How many bags does {he} fill?",
        {"a": (15, 80), "b": (2, 20), "c": (2, 9)},
        (
            SolutionStep("x = a - b", "{name} still has", "{things}"),
            SolutionStep("y = x / c", "That fills", "bags"),
        ),
    ),
    Template(
        "wages",
        "{name} earns {a} dollars per hour. {He} works {b} hours on {day} and spends {c} dollars on lunch. "
        "How many dollars remain?",
        {"a": (4, 12), "b": (2, 8), "c": (2, 15)},
        (
            SolutionStep("x = a * b", "{name} earns", "dollars"),
            SolutionStep("y = x - c", "After lunch there remain", "dollars"),
        ),
    ),
    Template(
        "two_kinds",
        "A ticket for a child costs {a} dollars and a ticket for an adult costs {b} dollars. {name} buys {c} tickets "
        "for children and {d} tickets for adults. What is the total cost?",
        {"a": (2, 6), "b": (5, 10), "c": (2, 6), "d": (2, 5)},
        (
            SolutionStep("x = a * c", "The children cost", "dollars"),
            SolutionStep("y = b * d", "The adults cost", "dollars"),
            SolutionStep("z = x + y", "The total is", "dollars"),
        ),
    ),
    Template(
        "pages",
        "{name} reads {a} pages every day for {b} days. The book has {c} pages. "
        "How many pages does {he} still have to read?",
        {"a": (3, 12), "b": (2, 7), "c": (40, 99)},
        (
            SolutionStep("x = a * b", "{name} has read", "pages"),
            SolutionStep("y = c - x", "{He} still has to read", "pages"),
        ),
    ),
    Template(
        "three_days",
        "{name} sold {a} {things} on Monday, {b} more than that on Tuesday, and {c} fewer on Wednesday "
        "than on Tuesday. How many {things} did {he} sell in the three days?",
        {"a": (4, 25), "b": (2, 15), "c": (2, 12)},
        (
            SolutionStep("x = a + b", "On Tuesday {name} sold", "{things}"),
            SolutionStep("y = x - c", "On Wednesday {he} sold", "{things}"),
            SolutionStep("z = a + x", "On the first two days {he} sold", "{things}"),
            SolutionStep("w = z + y", "In three days {he} sold", "{things}"),
        ),
    ),
    Template(
        "half_then_more",
        "{name} has {a} {things}. {friend} has half as many. Then {friend} finds {b} {things}. "
        "How many {things} does {friend} have now?",
        {"a": (4, 80), "b": (2, 30)},
        (
            SolutionStep("x = a / 2", "At first {friend} has", "{things}"),
            SolutionStep("y = x + b", "Then {friend} has", "{things}"),
        ),
    ),
    Template(
        "rows_of_trees",
        "A garden at the {place} has {a} rows of {b} trees. {name} plants {c} more rows of the same length. "
        "How many trees are there now?",
        {"a": (2, 9), "b": (2, 12), "c": (2, 6)},
        (
            SolutionStep("x = a + c", "There are", "rows"),
            SolutionStep("y = x * b", "That makes", "trees"),
        ),
    ),
    Template(
        "bus",
        "{a} people are on a bus. At the {place} {b} people get off and {c} get on. At the next stop {d} people "
        "get off. How many people are on the bus now?",
        {"a": (15, 50), "b": (2, 14), "c": (2, 20), "d": (2, 9)},
        (
            SolutionStep("x = a - b", "First there are", "people left"),
            SolutionStep("y = x + c", "Then there are", "people"),
            SolutionStep("z = y - d", "In the end there are", "people"),
        ),
    ),
    Template(
        "save_weeks",
        "{name} wants a bike that costs {a} dollars. {He} already has {b} dollars and saves {c} dollars every week. "
        "How many weeks does it take?",
        {"a": (30, 99), "b": (5, 40), "c": (2, 9)},
        (
            SolutionStep("x = a - b", "{name} needs", "dollars"),
            SolutionStep("y = x / c", "It takes", "weeks"),
        ),
    ),
    Template(
        "ages",
        "{name} is {a} years old. {friend} is {b} times as old. How old will {friend} be in {c} years?",
        {"a": (3, 12), "b": (2, 6), "c": (2, 20)},
        (
            SolutionStep("x = a * b", "Today {friend} is", "years old"),
            SolutionStep("y = x + c", "Then {friend} will be", "years old"),
        ),
    ),
    Template(
        "teams",
        "{a} girls and {b} boys of a {place} club form teams of {c}. Each team gets {d} {things}. "
        "How many {things} are needed?",
        {"a": (4, 30), "b": (4, 30), "c": (3, 9), "d": (2, 6)},
        (
            SolutionStep("x = a + b", "The club has", "children"),
            SolutionStep("y = x / c", "They form", "teams"),
            SolutionStep("z = y * d", "They need", "{things}"),
        ),
    ),
    Template(
        "walk",
        "{name} walks {a} miles in the morning and {b} miles in the evening every day. "
        "After {c} days {he} has walked how many miles?",
        {"a": (2, 9), "b": (2, 9), "c": (2, 7)},
        (
            SolutionStep("x = a + b", "Every day {he} walks", "miles"),
            SolutionStep("y = x * c", "After all days {he} has walked", "miles"),
        ),
    ),
)  # fmt: skip
