# SPDX-License-Identifier: Apache-2.0
"""Continued pretraining of a masked model: filling in masked tokens of the user's text."""

from __future__ import annotations

from lect.method import knobs
from lect.stages.pretrain.kinds import MaskedStep

CARD = {
    "title": "Continued masked-language-model pretraining",
    "paper": "arXiv:2004.10964",
    "claim": "masked tokens of the user's text are predicted in fewer bits, and the folder is a plain one as before",
    "differs": [
        "the paper trains RoBERTa on 12,500 batches of 2,048 sequences of 512 tokens; here a batch has 2,048 tokens, "
        "and the run ends after the minutes that the user gives",
        "text of both roles is read alike, by its size; calibration text of each is measured apart",
        "a sequence holds one document or a piece of one; dropout is off, and norms, biases and embeddings have no "
        "weight decay",
        "a batch in which no token is chosen by chance has one chosen token; rows count by their tokens",
        "what the paper measures, classifiers after fine-tuning, is not measured here",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
    "pico": {"tokens": 512, "batch_tokens": 64, "max_length": 48, "evaluation_tokens": 64},
}


@knobs
class Masked(MaskedStep):
    """A masked model (BERT, XLM-R) that has read the user's text (sections 3 and 4; masking: arXiv:1810.04805)."""
