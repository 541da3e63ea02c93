# SPDX-License-Identifier: Apache-2.0
"""What vocabularies do on text of other languages and scripts."""
