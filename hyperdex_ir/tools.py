"""The compiler: a Hugging Face causal language model in, parameter images and programs for the LPU out."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, get_type_hints, overload

from hyperdex_ir.backend.arguments import CompileArguments
from hyperdex_ir.backend.options import make_options
from hyperdex_ir.support.locations import find_folder

if TYPE_CHECKING:
    from hyperdex_ir.backend.compilation import CompiledFiles
    from hyperdex_ir.backend.options import CompileOptions
    from hyperdex_ir.support.locations import ModelFolder

_Declared = ParamSpec("_Declared")
_Result = TypeVar("_Result")


class _TakingFields(Generic[_Declared]):
    """A decorator that lets a method with `CompileArguments` take their fields, for callers and type checkers."""

    def __init__(self, declared: Callable[_Declared, CompileArguments]):
        hints = get_type_hints(declared)
        fields = inspect.signature(declared).parameters.values()
        self._parameters = [field.replace(annotation=hints[field.name]) for field in fields]

    @overload
    def __call__(
        self, method: Callable[[Any, CompileArguments], _Result]
    ) -> Callable[Concatenate[Any, _Declared], _Result]: ...
    @overload
    def __call__(
        self, method: Callable[[Any, str, CompileArguments], _Result]
    ) -> Callable[Concatenate[Any, str, _Declared], _Result]: ...
    def __call__(self, method: Callable[..., _Result]) -> Callable[..., _Result]:
        own = list(inspect.signature(method).parameters.values())[:-1]
        signature = inspect.Signature([*own, *self._parameters])

        @wraps(method)
        def call(*positional: Any, **named: Any) -> _Result:
            try:
                given = signature.bind(*positional, **named).arguments
            except TypeError as error:
                raise TypeError(f"AutoCompiler.{method.__name__}() {error}") from None
            first = [given.pop(parameter.name) for parameter in own]
            return method(*first, CompileArguments(**given))

        call.__signature__ = signature  # pyright: ignore[reportAttributeAccessIssue]
        return call


def _folder(arguments: CompileArguments, options: CompileOptions) -> ModelFolder:
    """The model's folder; without the network, perhaps with the checkpoint in the cache of `huggingface_hub`."""
    from hyperdex_ir.hub.snapshots import or_snapshot

    return or_snapshot(find_folder(arguments.model_id, arguments.output_dir), options.hub)


class AutoCompiler:
    """Compiles models by Hub id or directory."""

    @_TakingFields(CompileArguments)
    def compile(self, arguments: CompileArguments) -> CompiledFiles:
        """Compiles a model into its folder (see `hyperdex_ir.support.locations`); finished phases are not done again.

        Takes the fields of `CompileArguments`, which explains them.
        Returns the paths of the written files. Raises HyperdexError subclasses; then nothing is half-written.
        """
        from hyperdex_ir.backend.compilation import compile_model

        options = make_options(arguments)
        return compile_model(_folder(arguments, options), options)

    @_TakingFields(CompileArguments)
    def compile_to(self, level: str, arguments: CompileArguments) -> str:
        """The IR at a level: `import`, `lpu` (before lowering) or `isa`, as text for `compile_from`.

        Takes the level, then the arguments of `compile`. Reads no weights; writes only the files that dump_ir asks for.
        Raises as `compile`.
        """
        from hyperdex_ir.backend.show import compile_to

        options = make_options(arguments)
        return compile_to(_folder(arguments, options), options, level)

    @_TakingFields(CompileArguments)
    def plan(self, arguments: CompileArguments) -> dict[str, Any]:
        """The needs of a model on the device and on the host, as `hyperdex plan --json` prints them.

        Takes the arguments of `compile`. Reads config.json and the headers of the weights; writes nothing. Raises as
        `compile`.
        """
        find_folder(arguments.model_id, arguments.output_dir)  # raises before more is imported
        from hyperdex_ir.backend.plan import plan_model

        options = make_options(arguments)
        return plan_model(os.fspath(arguments.model_id), _folder(arguments, options), options)
