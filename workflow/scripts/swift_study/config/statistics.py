"""Intervals, verdicts, and what is taken for none."""

from pydantic import Field

from swift_study.config.base import Section, Seed


class Statistics(Section):
    after_step: int = Field(default=8, ge=0)
    """Checkpoints after this step count for verdicts (the paper speaks of 'after about 150 steps' of 1,200); a study may have its own."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of every interval; a verdict needs p <= 1 - confidence as well."""
    resamples: int = Field(default=2000, ge=200, le=10**6)
    """Bootstrap resamples of tasks and probes."""
    effective_share: float = Field(default=0.8, gt=0, le=1)
    """A curve is `effective` if its interval lies above 0 at this share of the counted checkpoints (SPEC, ambiguity 18)."""
    norm_floor: float = Field(default=1e-12, ge=0)
    """A target whose squared gradient norm is not above this has no RelInf: the pair is left out and counted."""
    seed: Seed = 17
    """Of the bootstrap."""

    def of_study(self, after_step: int | None) -> "Statistics":
        """These settings with a study's own ``after_step``, where it has one."""
        return self if after_step is None else self.model_copy(update={"after_step": after_step})


class Confounds(Section):
    length_factor: float = Field(default=1.5, gt=1)
    """Tasks whose strategy's and control's completions differ in mean length by no more than this factor are matched in length."""
