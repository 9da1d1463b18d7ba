"""A tomogram that is open in a browser: what it shows, what is drawn on it, what runs on it."""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING, Any

from otzi.collection import open_collection
from otzi.errors import ConfigurationError, NotFoundError, OtziError, UsageError
from otzi.events import Listener, Warned, ignore
from otzi.stroke_voxels import rasterise
from otzi_viewers.jobs import Jobs
from otzi_viewers.layers import (
    SLICES_LAYER,
    overview_style,
    slice_style,
    stroke_layer,
    tomogram_state,
    usual_mode3d,
    volume_layer,
)
from otzi_viewers.page_state import change_state, merged_state
from otzi_viewers.problems import page_problems
from otzi_viewers.saved_style import SLICES, VOLUME, save_styles, with_controls
from otzi_viewers.segmentation import Segmentation, soft_products, usual_segmentation
from otzi_viewers.state import LAYOUTS
from otzi_viewers.strokes.drawn import DrawnStrokes
from otzi_viewers.strokes.preview import BlockLabels, label_preview, preview_box

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otzi.strokes import Strokes
    from otzi.tomogram import Tomogram
    from otzi_viewers.layers import Addresses
    from otzi_viewers.server import ViewServer
    from otzi_viewers.state import Layout, ViewerState
    from otzi_viewers.strokes.overlay import StrokeOverlay
    from otzi_viewers.style import Style

__all__ = ["DRAWN_LABELS", "Workspace"]

DRAWN_LABELS = "drawn"
"""Name of the pseudo-labels that are made of what was drawn."""
_VIEW_VERB = "view-product"


class Workspace:
    """One tomogram in one Neuroglancer viewer.

    Parameters
    ----------
    server
        It runs already.
    tomo
        Its collection lies in a local folder.
    addresses
        Where the browser reads.
    user
        Who draws.
    listen
        Warned of what the page cannot show.
    """

    def __init__(
        self,
        server: ViewServer,
        tomo: Tomogram,
        addresses: Addresses,
        user: str,
        listen: Listener = ignore,
    ) -> None:
        self._tomo, self._addresses = tomo, addresses
        self._lock = RLock()
        self._listen = listen
        self.jobs = Jobs()
        self.problems: tuple[OtziError, ...] = ()
        """What the page cannot show, as errors."""
        self._drawn = DrawnStrokes(tomo, user)
        self._shown: Segmentation | None = usual_segmentation(tomo)
        self._beside: Segmentation | None = None
        self._layout: Layout = "4panel"
        state = self._state()
        self.viewer = server.show(state)
        self._put_last = state.to_json()
        self._overlay = _local_volume(self._drawn.overlay, tomo)
        self._preview: Any = None
        self._put()

    @property
    def tomogram(self) -> Tomogram:
        """What is open."""
        return self._tomo

    @property
    def strokes(self) -> Strokes:
        """What is drawn."""
        return self._drawn.strokes

    def show(self, wish: Mapping[str, Any]) -> None:
        """Change what is shown: ``segmentation``, ``beside`` and ``layout``, those that are given.

        Raises
        ------
        NotFoundError
            If a segmentation is not there.
        UsageError
            If there is no such layout.
        """
        with self._lock:
            if (layout := wish.get("layout", self._layout)) not in LAYOUTS:
                raise UsageError(f"layout {layout!r}: there are {', '.join(LAYOUTS)}")
            shown, beside = self._shown, self._beside
            if (product := wish.get("segmentation")) is not None:
                shown = Segmentation.of(self._tomo, str(product))
            if "beside" in wish:
                product = wish["beside"]
                beside = Segmentation.of(self._tomo, str(product)) if product else None
            self._shown, self._beside, self._layout = shown, beside, layout
            self._put()

    def draw(self, document: Mapping[str, Any]) -> None:
        """Add strokes as in a stroke file, on the disk and on the screen."""
        with self._lock:
            self._drawn.draw(document)
            self._overlay.invalidate()

    def undo(self) -> None:
        """Take the last stroke back."""
        with self._lock:
            if self._drawn.undo():
                self._overlay.invalidate()

    def save(self) -> bool:
        """Keep ramps, colours and opacities as they are on the screen; tell if they are new.

        Raises
        ------
        ConfigurationError
            If no segmentation is shown.
        """
        with self._lock:
            shown = self._shown
            if shown is None or shown.product is None:
                raise ConfigurationError(f"{self._tomo.id} shows no segmentation: choose one")
            styles = self._styles(shown)
            writable = open_collection(self._tomo.collection.path, mode="r+")
            is_new = save_styles(writable[self._tomo.id], shown.product, styles)
            if is_new:
                self._put()
            return is_new

    def label(self) -> None:
        """Start pseudo-labelling by what was drawn: first of what is looked at, then of all.

        Raises
        ------
        Locked
            If something runs already.
        NotFoundError
            If nothing was drawn.
        """
        with self._lock:
            if not self._drawn.strokes.strokes:
                raise NotFoundError(f"{self._tomo.id} has no strokes: draw some of each class")
            file = self._drawn.write()
            box = preview_box(self._tomo.shape, self._center())
        place = (str(self._tomo.collection.path), self._tomo.id)
        append = ["--append"] if self._drawn.is_on_volume else []

        def begin() -> None:
            strokes = self._drawn.strokes.strokes
            voxels = rasterise(strokes, self._tomo.classes, self._tomo.shape)
            labels = label_preview(self._tomo, voxels, box)
            with self._lock:
                self._preview = _local_volume(labels, self._tomo)
                self._put()

        def done() -> None:
            with self._lock:
                self._preview = None
                self.show({"segmentation": f"labels/{DRAWN_LABELS}"})

        self.jobs.start(
            "pseudo-labels",
            [
                ["strokes", *place, str(file), *append],
                ["pseudolabel", *place, "--name", DRAWN_LABELS],
            ],
            done,
            begin,
        )

    def prepare(self) -> None:
        """Start making the product that is drawn fastest, unless it is there or something runs."""
        shown = self._shown.product if self._shown else None
        kind, _, name = (shown or "").partition("/")
        if self._tomo.has("view") or self.jobs.last is not None or kind == "labels":
            return
        probs = ["--probs", name] if name else []

        def done() -> None:
            with self._lock:
                self._shown = Segmentation.of_view(self._tomo)
                self._put()

        place = (str(self._tomo.collection.path), self._tomo.id)
        self.jobs.start("view", [[_VIEW_VERB, *place, *probs]], done)

    def report(self, report: Mapping[str, Any]) -> None:
        """Take note of what the page says is wrong, and warn of what is new."""
        with self._lock:
            known = {str(problem) for problem in self.problems}
            self.problems = page_problems(report)
            for problem in self.problems:
                if str(problem) not in known:
                    self._listen(Warned(f"{self._tomo.id}: {problem}"))

    def status(self) -> dict[str, Any]:
        """Give what the page shows beside the panels, as plain JSON."""
        job = self.jobs.last
        return {
            "segmentation": self._shown and self._shown.product,
            "beside": self._beside and self._beside.product,
            "segmentations": list(soft_products(self._tomo)),
            "layout": self._layout,
            "n_strokes": len(self._drawn.strokes.strokes),
            "job": job and job.to_json(),
            "problems": [str(problem) for problem in self.problems],
        }

    def source(self) -> dict[str, Any]:
        """Give what a figure of the page is made of, as plain JSON."""
        shown = {"": self._shown, f" {self._beside and self._beside.product}": self._beside}
        found = {suffix: one for suffix, one in shown.items() if one is not None}
        products = ["raw", *(one.product for one in found.values() if one.product)]
        return {
            "tomogram": self._tomo.id,
            "digests": {name: self._tomo.digest(name) for name in dict.fromkeys(products)},
            "tables": [
                {use: style.digest for use, style in self._styles(one, suffix).items()}
                for suffix, one in found.items()
            ],
        }

    def _styles(self, shown: Segmentation, suffix: str = "") -> dict[str, Style]:
        """Give how a segmentation is drawn on the screen."""
        layers = {layer["name"]: layer for layer in self.viewer.state.to_json()["layers"]}
        volume = volume_layer(usual_mode3d(self._tomo, shown))
        return {
            use: with_controls(style, layers.get(name + suffix, {}).get("shaderControls", {}))
            for use, name, style in (
                (SLICES, SLICES_LAYER, slice_style(self._tomo, shown)),
                (VOLUME, volume, overview_style(self._tomo, shown)),
            )
        }

    def _state(self) -> ViewerState:
        return tomogram_state(
            self._tomo,
            self._addresses,
            segmentation=self._shown,
            beside=self._beside,
            layout=self._layout,
        )

    def _center(self) -> tuple[float, float, float]:
        """Give where the page looks: z, y, x in voxels."""
        state = self.viewer.state
        by_name = dict(zip(state.dimensions.names, state.position, strict=True))
        return float(by_name["z"]), float(by_name["y"]), float(by_name["x"])

    def _put(self) -> None:
        """Bring the page up to date; what the user has set there stays."""
        volumes = self.viewer.volume_manager
        state = self._state()
        if self._preview is not None:
            url = volumes.register_volume(self._preview)
            state = state.with_layer(stroke_layer(self._tomo, url, "preview"))
        url = volumes.register_volume(self._overlay)
        document = state.with_layer(stroke_layer(self._tomo, url)).to_json()
        last, self._put_last = self._put_last, document
        change_state(self.viewer, lambda before: merged_state(before, document, last))


def _local_volume(labels: StrokeOverlay | BlockLabels, tomo: Tomogram) -> Any:
    import neuroglancer

    spacing_m = [v * 1e-10 for v in tomo.spacing_angstrom]
    dimensions = neuroglancer.CoordinateSpace(names=["z", "y", "x"], units="m", scales=spacing_m)
    return neuroglancer.LocalVolume(labels, dimensions=dimensions, volume_type="segmentation")
