# SPDX-License-Identifier: Apache-2.0
"""The kind of steps that publish a model: another form of the same model, with the terms of its base beside it."""

from __future__ import annotations

from typing import Any, ClassVar

from lect.artefacts import Artefact, Model
from lect.method import Estimate, Run, Sizes, Step, knobs
from lect.ops import licence

READ_BYTES_PER_SECOND = 2.5e8  # reading, checking sums, writing and reading again, measured on 2 cores


@knobs
class ExportStep(Step):
    """Writes a model for others to use."""

    inputs: ClassVar[dict[str, type[Artefact]]] = {"base": Model, "model": Model}

    def export(self, run: Run, base: Model, model: Model) -> Artefact:
        """Write the model into ``run.folder``, without licence files."""
        raise NotImplementedError

    def finish(self, run: Run) -> None:
        """Seal the folder after the licence files have been added."""

    def apply(self, run: Run, **inputs: Any) -> Artefact:
        """Export, then carry the licence files of model and base along."""
        base, model = inputs["base"], inputs["model"]
        made = self.export(run, base, model)
        carried = sorted({*licence.carry(model.folder, run.folder), *licence.carry(base.folder, run.folder)})
        self.finish(run)
        run.fact(licence=str(licence.read(base.folder)), carried=carried)
        return made

    def estimate(self, sizes: Sizes) -> Estimate:
        """Seconds by bytes moved; the model is held twice while its copy is checked."""
        return Estimate(
            seconds=5 + 3 * sizes.model_bytes / READ_BYTES_PER_SECOND,
            memory_bytes=2 * 4 * sizes.parameters,
            disk_bytes=sizes.model_bytes,
            sizes=sizes,
        )
