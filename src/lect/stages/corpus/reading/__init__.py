# SPDX-License-Identifier: Apache-2.0
"""From files of any usual kind to texts: the plumbing of the corpus readers."""
