// RUN: hyperdex-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s
// Every check of every verifier.

func.func @f() {
  %w = "lpu.weight"() <{keys = []}> : () -> tensor<4xf32>
  func.return
}
// CHECK: lpu.weight: needs at least one key

// -----

func.func @f() {
  %w = lpu.weight "" : tensor<4xf32>
  func.return
}
// CHECK: lpu.weight: empty key

// -----

func.func @f() {
  %w = lpu.weight "a" : tensor<?xf32>
  func.return
}
// CHECK: lpu.weight: a parameter has a static shape

// -----

func.func @f() {
  %w = lpu.weight "a" : f32
  func.return
}
// CHECK: lpu.weight: expected a tensor type

// -----

func.func @f() {
  %c = lpu.constant 1.0 : tensor<1xf32>
  func.return
}
// CHECK: lpu.constant: must be tensor<f32>

// -----

func.func @f(%x: tensor<?x64xf32>, %y: tensor<?x64xi64>) {
  %z = lpu.add %x, %y : (tensor<?x64xf32>, tensor<?x64xi64>) -> tensor<?x64xf32>
  func.return
}
// CHECK: lpu.add: element types

// -----

func.func @f(%x: tensor<?x64xf32>, %y: tensor<?x32xf32>) {
  %z = lpu.add %x, %y : (tensor<?x64xf32>, tensor<?x32xf32>) -> tensor<?x64xf32>
  func.return
}
// CHECK: shapes ?x64 and ?x32 do not broadcast

// -----

func.func @f(%x: tensor<?x64xf32>, %y: tensor<?x1xf32>) {
  %z = lpu.mul %x, %y : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x1xf32>
  func.return
}
// CHECK: lpu.mul: result shape must be ?x64

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %z = "lpu.neg"(%x) : (tensor<?x64xf32>) -> tensor<?x32xf32>
  func.return
}
// CHECK: result 'res' at position 0 does not verify:

// -----

func.func @f(%x: tensor<64x?xf32>) {
  %z = lpu.sum %x : (tensor<64x?xf32>) -> tensor<64x1xf32>
  func.return
}
// CHECK: lpu.sum: the last dimension must be static

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %z = lpu.mean %x : (tensor<?x64xf32>) -> tensor<?xf32>
  func.return
}
// CHECK: lpu.mean: the result keeps the dimension with size 1

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %z = lpu.reshape %x : (tensor<?x64xf32>) -> tensor<1x64xf32>
  func.return
}
// CHECK: lpu.reshape: must keep the token dimension

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %z = lpu.reshape %x : (tensor<?x64xf32>) -> tensor<?x32xf32>
  func.return
}
// CHECK: lpu.reshape: element counts differ

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %z = lpu.transpose %x [0, 0] : (tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return
}
// CHECK: lpu.transpose: not a permutation of the dimensions

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %z = lpu.transpose %x [1, 0] : (tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return
}
// CHECK: lpu.transpose: result shape

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %z = lpu.slice %x dim 0 from 0 to 1 : (tensor<?x64xf32>) -> tensor<1x64xf32>
  func.return
}
// CHECK: lpu.slice: needs a static dimension

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %z = lpu.slice %x dim 1 from 8 to 65 : (tensor<?x64xf32>) -> tensor<?x57xf32>
  func.return
}
// CHECK: lpu.slice: bounds outside 0..64

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %z = lpu.slice %x dim 1 from 0 to 8 : (tensor<?x64xf32>) -> tensor<?x9xf32>
  func.return
}
// CHECK: lpu.slice: result shape must be ?x8

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %z = lpu.concat %x, %x dim 2 : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x128xf32>
  func.return
}
// CHECK: lpu.concat: no such dimension

// -----

func.func @f(%x: tensor<?x64xf32>, %y: tensor<?x4x16xf32>) {
  %z = lpu.concat %x, %y dim 1 : (tensor<?x64xf32>, tensor<?x4x16xf32>) -> tensor<?x68xf32>
  func.return
}
// CHECK: lpu.concat: other dimensions must agree

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %z = lpu.concat %x, %x dim 1 : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x100xf32>
  func.return
}
// CHECK: lpu.concat: result shape must be ?x128

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %z = lpu.broadcast %x : (tensor<?x64xf32>) -> tensor<?x1xf32>
  func.return
}
// CHECK: lpu.broadcast: does not broadcast to the result shape

// -----

func.func @f(%x: tensor<1x?x64xf32>) {
  %z = lpu.select_rows %x : tensor<1x?x64xf32>
  func.return
}
// CHECK: lpu.select_rows: the token dimension must come first

// -----

func.func @f(%w: tensor<8xf16>, %i: tensor<?xi64>) {
  %z = lpu.embedding %w at %i : (tensor<8xf16>, tensor<?xi64>) -> tensor<?x8xf32>
  func.return
}
// CHECK: lpu.embedding: the table must be [rows, columns]

// -----

func.func @f(%w: tensor<8x4xf16>, %i: tensor<?xi64>) {
  %z = lpu.embedding %w at %i : (tensor<8x4xf16>, tensor<?xi64>) -> tensor<?x8xf32>
  func.return
}
// CHECK: lpu.embedding: result shape

// -----

func.func @f(%w: tensor<8x3x4xf32>, %i: tensor<?xi64>) {
  %c, %s = lpu.rotary_table %w at %i : (tensor<8x3x4xf32>, tensor<?xi64>) -> (tensor<?x4xf32>, tensor<?x4xf32>)
  func.return
}
// CHECK: lpu.rotary_table: the table must be [positions, 2, d]

// -----

func.func @f(%w: tensor<8x2x4xf32>, %i: tensor<?xi64>) {
  %c, %s = lpu.rotary_table %w at %i : (tensor<8x2x4xf32>, tensor<?xi64>) -> (tensor<?x4xf32>, tensor<?x8xf32>)
  func.return
}
// CHECK: lpu.rotary_table: result shape

// -----

func.func @f(%x: tensor<?x64xf32>, %w: tensor<64xf16>) {
  %z = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64xf16> -> tensor<?x64xf32>
  func.return
}
// CHECK: lpu.linear: the weight must be [N, K]

// -----

func.func @f(%x: tensor<?x64xf32>, %w: tensor<8x32xf16>) {
  %z = lpu.linear %x by %w : tensor<?x64xf32>, tensor<8x32xf16> -> tensor<?x8xf32>
  func.return
}
// CHECK: lpu.linear: x has 64 columns, the weight 32

// -----

func.func @f(%x: tensor<?x64xf32>, %w: tensor<8x64xf16>) {
  %z = lpu.linear %x by %w : tensor<?x64xf32>, tensor<8x64xf16> -> tensor<?x64xf32>
  func.return
}
// CHECK: lpu.linear: result shape

// -----

func.func @f(%x: tensor<?x64xf32>, %w: tensor<8x64xf32>) {
  %z = lpu.linear %x by %w : tensor<?x64xf32>, tensor<8x64xf32> -> tensor<?x8xf32>
  func.return
}
// CHECK: lpu.linear: the weight must be f16 or bf16

// -----

func.func @f(%x: tensor<?x64xf32>, %w: tensor<8x64xf16>, %b: tensor<64xf32>) {
  %z = lpu.linear %x by %w bias %b : tensor<64xf32> : tensor<?x64xf32>, tensor<8x64xf16> -> tensor<?x8xf32>
  func.return
}
// CHECK: lpu.linear: the bias must be [N]

// -----

func.func @f(%x: tensor<?x64xf32>, %w: tensor<8x64xf16>) {
  %z = "lpu.linear"(%x, %w, %x) <{operandSegmentSizes = array<i32: 1, 1, 0, 1, 0>}> : (tensor<?x64xf32>, tensor<8x64xf16>, tensor<?x64xf32>) -> tensor<?x8xf32>
  func.return
}
// CHECK: result 'res' at position 0 does not verify:

// -----

func.func @f(%x: tensor<?x64xf32>, %w: tensor<8x64xf16>) {
  %z = lpu.linear %x by %w then swish : tensor<?x64xf32>, tensor<8x64xf16> -> tensor<?x8xf32>
  func.return
}
// CHECK: expected one of relu, silu, gelu, gelu_tanh, sigmoid, tanh

// -----

func.func @f(%x: tensor<?x64xf32>, %w: tensor<32xf32>) {
  %z = lpu.rms_norm %x weight %w : tensor<32xf32> epsilon 1.0 : tensor<?x64xf32>
  func.return
}
// CHECK: lpu.rms_norm: the weight must be [C]

// -----

func.func @f(%x: tensor<?x64xf32>, %w: tensor<32xf32>) {
  %z = lpu.layer_norm %x bias %w : tensor<32xf32> epsilon 1.0 : tensor<?x64xf32>
  func.return
}
// CHECK: lpu.layer_norm: weight and bias must be [C]

// -----

func.func @f(%x: tensor<?x64xf32>, %c: tensor<?x16xf32>) {
  %z = lpu.rotary %x cos %c sin %c style half : (tensor<?x64xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x64xf32>
  func.return
}
// CHECK: lpu.rotary: x must be [?, heads, head size]

// -----

func.func @f(%x: tensor<?x4x16xf32>, %c: tensor<?x16xf32>, %s: tensor<?x8xf32>) {
  %z = lpu.rotary %x cos %c sin %s style half : (tensor<?x4x16xf32>, tensor<?x16xf32>, tensor<?x8xf32>) -> tensor<?x4x16xf32>
  func.return
}
// CHECK: lpu.rotary: cos and sin must both be [?, d]

// -----

func.func @f(%x: tensor<?x4x16xf32>, %c: tensor<?x18xf32>) {
  %z = lpu.rotary %x cos %c sin %c style half : (tensor<?x4x16xf32>, tensor<?x18xf32>, tensor<?x18xf32>) -> tensor<?x4x16xf32>
  func.return
}
// CHECK: lpu.rotary: d must be even and at most the head size

// -----

func.func @f(%x: tensor<?x4x16xf32>, %c: tensor<?x16xf32>) {
  %z = lpu.rotary %x cos %c sin %c style odd : (tensor<?x4x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x4x16xf32>
  func.return
}
// CHECK: expected one of half, interleaved

// -----

func.func @f(%x: tensor<?x4x16xf32>, %c: tensor<?x16xf32>) {
  %z = lpu.rotary %x cos %c sin %c style half : (tensor<?x4x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x2x16xf32>
  func.return
}
// CHECK: lpu.rotary: result shape

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %z = lpu.attention %x, %x, %x slot 0 scale 1.0 : (tensor<?x64xf32>, tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return
}
// CHECK: lpu.attention: operands must be [?, heads, head size]

// -----

func.func @f(%q: tensor<?x4x16xf32>, %k: tensor<?x4x8xf32>) {
  %z = lpu.attention %q, %k, %q slot 0 scale 1.0 : (tensor<?x4x16xf32>, tensor<?x4x8xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return
}
// CHECK: lpu.attention: head sizes differ, 16 and 8

// -----

func.func @f(%q: tensor<?x4x16xf32>, %k: tensor<?x3x16xf32>) {
  %z = lpu.attention %q, %k, %k slot 0 scale 1.0 : (tensor<?x4x16xf32>, tensor<?x3x16xf32>, tensor<?x3x16xf32>) -> tensor<?x4x16xf32>
  func.return
}
// CHECK: lpu.attention: heads must be a multiple of KV heads

// -----

func.func @f(%q: tensor<?x4x16xf32>) {
  %z = lpu.attention %q, %q, %q slot 0 scale 1.0 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x2x16xf32>
  func.return
}
// CHECK: lpu.attention: result shape

// -----

func.func @f(%q: tensor<?x4x16xf32>) {
  %z = lpu.attention %q, %q, %q slot 0 scale 1.0 window 0 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return
}
// CHECK: lpu.attention: the window must be positive

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %z = lpu.repeat 0 (%i = %x : tensor<?x64xf32>) {
    lpu.yield %i : tensor<?x64xf32>
  }
  func.return
}
// CHECK: lpu.repeat: the trip count must be positive

// -----

func.func @f(%x: tensor<?x64xf32>, %q: tensor<?x4x16xf32>) {
  %z = lpu.repeat 2 (%i = %x : tensor<?x64xf32>) {
    lpu.yield %q : tensor<?x4x16xf32>
  }
  func.return
}
// CHECK: lpu.repeat: must yield its inputs' types

// -----

func.func @f(%x: tensor<?x64xf32>, %q: tensor<?x4x16xf32>) {
  %z = "lpu.repeat"(%x) <{trip_count = 2 : i64}> ({
  ^bb0(%i: tensor<?x4x16xf32>):
    lpu.yield %i : tensor<?x4x16xf32>
  }) : (tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return
}
// CHECK: lpu.repeat: body arguments have the inputs' types

// -----

func.func @f(%x: tensor<?x64xf32>, %q: tensor<?x4x16xf32>) {
  %z = "lpu.repeat"(%x) <{trip_count = 2 : i64}> ({
  ^bb0(%i: tensor<?x64xf32>):
    lpu.yield %i : tensor<?x64xf32>
  }) : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  func.return
}
// CHECK: lpu.repeat: results have the inputs' types

// -----

func.func @f(%x: tensor<?x64xf32>) {
  lpu.yield %x : tensor<?x64xf32>
}
// CHECK: 'lpu.yield' expects parent op 'lpu.repeat'

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %z = lpu.neg %y : tensor<?x64xf32>
  %y = lpu.neg %x : tensor<?x64xf32>
  func.return
}
// CHECK: lpu.neg: operand 0 is used before it is defined

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.layer @layer(%x) : (tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return
}
// CHECK: lpu.layer: no function @layer

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.layer @layer(%x) : (tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return
}
func.func @layer(%x: tensor<?x16xf32>) -> tensor<?x16xf32> {
  func.return %x : tensor<?x16xf32>
}
// CHECK: lpu.layer: @layer is (tensor<?x16xf32>) -> (tensor<?x16xf32>), used as (tensor<?x64xf32>) -> (tensor<?x64xf32>)

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.layers "o" [0, 1] @b, @f (%x : tensor<?x64xf32>)
  func.return
}
// CHECK: lpu.layers: no function @b

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.layers "o" [0] @f (%x : tensor<?x64xf32>)
  func.return
}
// CHECK: lpu.layers: @f is (tensor<?x64xf32>) -> (), used as (tensor<?x64xf32>) -> (tensor<?x64xf32>)

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.layers "o" [0, 1] @g (%x : tensor<?x64xf32>)
  func.return
}
func.func @g(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  func.return %x : tensor<?x64xf32>
}
// CHECK: lpu.layers: the table's numbers must be in 0..0

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.layers "o" [] @g (%x : tensor<?x64xf32>)
  func.return
}
func.func @g(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  func.return %x : tensor<?x64xf32>
}
// CHECK: lpu.layers: the table is empty

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.layers "o" [0, 1] @g, @g (%x : tensor<?x64xf32>)
  func.return
}
func.func @g(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  func.return %x : tensor<?x64xf32>
}
// CHECK: lpu.layers: a function stands twice

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.layers "o.*" [0] @g (%x : tensor<?x64xf32>)
  func.return
}
func.func @g(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  func.return %x : tensor<?x64xf32>
}
// CHECK: lpu.layers: the table belongs to no layer, its key must not have a *

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.layers "o" [0] @f ()
  func.return
}
// CHECK: lpu.layers: the first operand is the value that goes round

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.layer_constant "c" [1.0] : tensor<f32>
  func.return
}
// CHECK: lpu.layer_constant: the key needs a * for the number of the layer

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.layer_constant "c.*" [] : tensor<f32>
  func.return
}
// CHECK: lpu.layer_constant: needs a number for each layer

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.layer_constant "c.*" [1.0] : tensor<4xf32>
  func.return
}
// CHECK: lpu.layer_constant: must be tensor<f32>
