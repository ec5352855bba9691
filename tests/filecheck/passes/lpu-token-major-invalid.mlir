// RUN: hyperdex-opt %s -p lpu-token-major --split-input-file --verify-diagnostics | filecheck %s
// What mixes tokens has no token-major form; the error names the operation and its module.

func.func @tokens_times_tokens(%x: tensor<1x?x1xf32>, %y: tensor<1x1x?xf32>) -> tensor<1x?x?xf32> {
  %z = lpu.mul %x, %y : (tensor<1x?x1xf32>, tensor<1x1x?xf32>) -> tensor<1x?x?xf32> loc("model.mask")
  func.return %z : tensor<1x?x?xf32>
}
// -----
func.func @reshape_across_tokens(%x: tensor<1x4x?x16xf32>) -> tensor<1x?x64xf32> {
  %y = lpu.reshape %x : (tensor<1x4x?x16xf32>) -> tensor<1x?x64xf32> loc("model.layers.0.self_attn")
  func.return %y : tensor<1x?x64xf32>
}
// -----
func.func @matrix_over_tokens(%x: tensor<1x64x?xf32>) -> tensor<1x64x?xf32> {
  %y = lpu.rms_norm %x epsilon 1.000000e-06 : tensor<1x64x?xf32>
  func.return %y : tensor<1x64x?xf32>
}

// CHECK:      error: lpu.mul at model.mask: pairs tokens with tokens (operand shapes 1x?x1, 1x1x?)
//
// CHECK:      error: lpu.reshape at model.layers.0.self_attn: reshapes to 1x?x64 across the token dimension (operand shapes 1x4x?x16)
//
// CHECK:      error: lpu.rms_norm: works across tokens (operand shapes 1x64x?)
