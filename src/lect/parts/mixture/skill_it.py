# SPDX-License-Identifier: Apache-2.0
"""More of the text that the model still has most to learn from, as it shows while it trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from lect.method import OneOf, Range, knobs
from lect.parts.mixture.kind import Feedback, Mixture

if TYPE_CHECKING:
    from lect.artefacts import Document

CARD = {
    "title": "Skill-it: online mixture over a graph of skills",
    "paper": "arXiv:2307.14430",
    "claim": "shares follow the update of algorithm 1; a text that is another's twin has a strong edge to it, and with "
    "such a pair the mean loss of all texts ends below that of equal shares",
    "differs": [
        "no gain is claimed on real text: a repeat with one of the authors (arXiv:2411.05735) finds that the method "
        "does not steadily beat equal shares; on pico models it beats them where one text helps another, and loses to "
        "them on two strangers (three seeds: 4.46 to 4.28 nats a token)",
        "skills are roles, languages or sources, which the documents carry, not tasks",
        "an edge is the relative fall of the loss after a short lap on one skill alone, nothing where it rises: the "
        "fall as in the code of arXiv:2411.05735, the cut at zero as in the graphs published for fine-tuning; the "
        "authors' code for the graph is not public, and the paper was read in parts only",
        "losses of the last measurements are added up, as the authors' code does for several skills; for one target "
        "it takes their mean",
        "a measurement counts from the next row on; the authors' code lags by up to one of its rounds",
        "rows are laid evenly instead of drawn, and skills without edges are treated like all others",
        "laps come on top of the run's tokens; the facts tell their number",
    ],
    "version": 1,
    "off": {"eta": 0.0},
    "needs": [],
    "xfail": {},
}


@knobs
class SkillIt(Mixture):
    """Shares in proportion to exp(eta x the losses that training on a text would lower), measured again and again.

    Before the run the model trains for ``lap_steps`` on each text alone, from the same weights each time: the graph
    says how much of each text's loss that takes away. Laps take as long as so many steps for every text, and a copy of
    the weights in memory. Losses are those of calibration text; a text that has none is measured on its training text,
    and the run says so. Facts: ``laps``, and ``measurements`` with losses and shares at each of them.
    """

    by: Annotated[str, OneOf("role", "language", "source")] = "language"
    """What makes a skill: the role alone, or role and language, or role and the file that a document comes from."""
    goal: Annotated[str, OneOf("all", "target")] = "all"
    """Whose losses count: those of all texts, or of the target's alone; then kept text is read as far as it helps."""
    eta: Annotated[float, Range(at_least=0, at_most=1000)] = 0.5
    """How strongly shares follow losses and graph, per nat; the paper's runs take 0.2 to 0.8, 0 shares equally."""
    window: Annotated[int, Range(at_least=1, at_most=1000)] = 3
    """How many of the last measurements are added up."""
    measurements: Annotated[int, Range(at_least=1, at_most=1000)] = 10
    """How often the losses are measured and the shares set anew, evenly over the run, the first time at its start."""
    lap_steps: Annotated[int, Range(at_least=1, at_most=1_000_000)] = 20
    """Steps of the lap on each text, with the whole schedule in them."""

    def group(self, document: Document) -> str:
        """The role, with language or source where they make the skill."""
        return f"{document.role} {getattr(document, self.by) if self.by != 'role' else ''}".strip()

    def graph(self, feedback: Feedback) -> dict[str, dict[str, float]]:
        """A_ij = max(0, (L_j before - L_j after a lap on i) / L_j before), for every i and j of the goal."""
        before = feedback.losses[0] if feedback.losses else {}
        goal = [name for name in before if self.goal == "all" or name.split()[0] == "target"]
        return {
            lap: {name: max(0.0, 1 - after[name] / before[name]) if before[name] > 0 else 0.0 for name in goal}
            for lap, after in feedback.laps.items()
        }

    def shares(self, tokens: Mapping[str, int], progress: float, feedback: Feedback) -> Mapping[str, float]:
        """p_i = exp(eta sum_j A_ij sum_tau L_j(tau)) over the last ``window`` measurements (algorithm 1).

        Until the model has been measured a second time, every loss counts as 1, as the algorithm begins.
        """
        graph = self.graph(feedback)
        recent = feedback.losses[-self.window :] if len(feedback.losses) > 1 else ()

        def power(name: str) -> float:
            edges = graph.get(name, {})
            return self.eta * sum(a * (sum(one[j] for one in recent) if recent else 1.0) for j, a in edges.items())

        powers = {name: power(name) for name in tokens}
        most = max(powers.values())
        return {name: math.exp(value - most) for name, value in powers.items()}
