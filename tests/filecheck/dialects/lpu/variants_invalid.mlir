// RUN: hyperdex-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

func.func @f(%x: tensor<?x64xf32>, %w: tensor<7x64xf16>) {
  %y = lpu.linear %x by %w gated : tensor<?x64xf32>, tensor<7x64xf16> -> tensor<?x3xf32>
  func.return
}
// CHECK: lpu.linear: gated needs a weight of 2N rows

// -----

func.func @f(%x: tensor<?x64xf32>, %w: tensor<8x64xf16>) {
  %y = lpu.linear %x by %w gated : tensor<?x64xf32>, tensor<8x64xf16> -> tensor<?x8xf32>
  func.return
}
// CHECK: lpu.linear: result shape

// -----

func.func @f(%x: tensor<?x64xf32>, %w: tensor<8x64xf16>, %b: tensor<4xf32>) {
  %y = lpu.linear %x by %w gated bias %b : tensor<4xf32> : tensor<?x64xf32>, tensor<8x64xf16> -> tensor<?x4xf32>
  func.return
}
// CHECK: lpu.linear: the bias must be [2N]

// -----

func.func @f(%x: tensor<?x64xf32>, %w: tensor<8x64xf16>, %t: tensor<?x8xf32>) {
  %y = "lpu.linear"(%x, %w, %t) <{gated, operandSegmentSizes = array<i32: 1, 1, 0, 1, 0>}> : (tensor<?x64xf32>, tensor<8x64xf16>, tensor<?x8xf32>) -> tensor<?x4xf32>
  func.return
}
// CHECK: result 'res' at position 0 does not verify:

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.rms_norm %x unit_offset epsilon 1.000000e-05 : tensor<?x64xf32>
  func.return
}
// CHECK: lpu.rms_norm: unit_offset needs a weight

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.layer_norm %x unit_offset epsilon 1.000000e-05 : tensor<?x64xf32>
  func.return
}
// CHECK: lpu.layer_norm: unit_offset needs a weight

// -----

func.func @f() {
  %c = lpu.constant 1.0e+39 : tensor<f32>
  func.return
}
// CHECK: outside float32

// -----

func.func @f() {
  %c = lpu.constant 12 : tensor<f32>
  func.return
}
// CHECK: expected a number with a point, or the bits of a float32 in hex

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.rms_norm %x epsilon 0x100000000 : tensor<?x64xf32>
  func.return
}
// CHECK: expected a number with a point, or the bits of a float32 in hex
