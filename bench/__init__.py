# SPDX-License-Identifier: Apache-2.0
"""Comparisons with peers and with what lect claims, on the real model; results as JSON in ``bench/results``."""
