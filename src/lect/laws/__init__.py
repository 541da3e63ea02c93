# SPDX-License-Identifier: Apache-2.0
"""Published laws, one a file: pure functions from sizes to a prediction."""
