"""Workers as pods of Kubernetes, by the Dask operator that runs there."""

from __future__ import annotations

from pathlib import Path

import yaml  # type: ignore[import-untyped]

from otzi.clusters import DaskExecutor, connected, required
from otzi.errors import ConfigurationError, ExecutorUnavailable, NotFoundError, disk_errors

__all__ = ["kubernetes_pods"]


def kubernetes_pods(file: str) -> DaskExecutor:
    """Give the executor whose workers are the pods of a ``DaskCluster``, made for it.

    Parameters
    ----------
    file
        YAML of one ``DaskCluster`` of the operator (``kubernetes.dask.org/v1``). Its number of
        worker replicas is kept as it is: the operator's scaling ends workers that are at work.

    Raises
    ------
    NotFoundError
        If there is no such file.
    ConfigurationError
        If it is no ``DaskCluster``.
    ExecutorUnavailable
        If ``dask-kubernetes`` is not here, or no Kubernetes that would take it.
    """
    specification = _read(Path(file))
    operator = required("dask_kubernetes.operator", "k8s")
    kr8s, httpx = (required(module, "k8s") for module in ("kr8s", "httpx"))
    unreachable = (ValueError, OSError, RuntimeError, httpx.HTTPError)
    try:
        kr8s.api().version()  # a cluster that is not made at all has nothing to clean up
        cluster = operator.KubeCluster(custom_cluster_spec=specification, quiet=True)
    except (*unreachable, kr8s.ServerError, kr8s.APITimeoutError) as error:
        raise ExecutorUnavailable(
            f"Kubernetes does not take the cluster of {file}: {error}: check `kubectl config "
            "current-context`, and that the Dask operator is installed"
        ) from error
    return DaskExecutor(connected(cluster, f"k8s:{file}"), cluster)


def _read(path: Path) -> dict[str, object]:
    if not path.is_file():
        raise NotFoundError(f"cluster file {path} is not there")
    try:
        with disk_errors(path, "reading"):
            document = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict) or document.get("kind") != "DaskCluster":
        raise ConfigurationError(f"{path} is no DaskCluster: take deploy/kubernetes as a model")
    return document
