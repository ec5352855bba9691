"""The `lpu` dialect: the computation of a model, as values over tokens.

Values are tensors of f32 (i64 for token ids and positions) with exactly one dynamic dimension, the tokens in flight.
The *token-major* form, which the pass `lpu-token-major` makes and lowering requires, is `tensor<?xCxf32>` or
`tensor<?xHxDxf32>`. Weights are named by checkpoint key, never held. The module's entry is

    func.func @main(%input_ids: tensor<?xi64>, %position_ids: tensor<?xi64>) -> tensor<?xVxf32>

which gives the logits of the wanted rows (`lpu.select_rows`). When `lpu.grid` says that several devices run the module,
each device runs the same module on its part: `lpu_ops/sharding.py`. Every operation has one meaning, to the bit:
`docs/arithmetic.md`. The operations are in `lpu_ops/`, by topic.
"""

from xdsl.ir import Dialect

from hyperdex_ir.dialects.lpu_ops.base import (
    OPERATIONS,
    LpuOp,
    broadcast_shapes,
    element_of,
    is_matrix_element,
    shape_of,
    shape_text,
    tokens_type,
)
from hyperdex_ir.dialects.lpu_ops.choices import ActivationAttr, RotaryStyleAttr
from hyperdex_ir.dialects.lpu_ops.control import LayerOp, LayersOp, RepeatOp, YieldOp
from hyperdex_ir.dialects.lpu_ops.convolution import ShortConvOp
from hyperdex_ir.dialects.lpu_ops.elementwise import (
    AddOp,
    BinaryOp,
    DivOp,
    ErfOp,
    ExpOp,
    FunctionOp,
    GeluOp,
    GeluTanhOp,
    MaxOp,
    MeanOp,
    MinOp,
    MulOp,
    NegOp,
    ReduceOp,
    ReluOp,
    RowMaxOp,
    RsqrtOp,
    SigmoidOp,
    SiluOp,
    SqrtOp,
    SubOp,
    SumOp,
    TanhOp,
    UnaryOp,
)
from hyperdex_ir.dialects.lpu_ops.handlers import Handlers
from hyperdex_ir.dialects.lpu_ops.model import (
    AttentionOp,
    EmbeddingOp,
    LayerNormOp,
    LinearOp,
    RmsNormOp,
    RotaryOp,
    RotaryTableOp,
)
from hyperdex_ir.dialects.lpu_ops.routing import ExpertLinearOp, TakeColumnsOp, TopKOp
from hyperdex_ir.dialects.lpu_ops.shapes import (
    BroadcastOp,
    ConcatOp,
    ReshapeOp,
    SelectRowsOp,
    SliceOp,
    TransposeOp,
)
from hyperdex_ir.dialects.lpu_ops.sharding import (
    GRID,
    MAX_DEVICES,
    SHARDING,
    AllGatherOp,
    GridAttr,
    Segment,
    SelectColumnsOp,
    ShardingAttr,
    block_segment,
    grid_of,
    sharding_of,
)
from hyperdex_ir.dialects.lpu_ops.sources import ConstantOp, LayerConstantOp, WeightOp
from hyperdex_ir.dialects.lpu_ops.traits import (
    Elementwise,
    HoldsParameter,
    HoldsTable,
    IsView,
    KeepsZeros,
    MovesData,
    RowWise,
    Source,
    StatefulOp,
    has_trait,
)

LPU = Dialect("lpu", OPERATIONS, [ActivationAttr, RotaryStyleAttr, GridAttr, ShardingAttr])
