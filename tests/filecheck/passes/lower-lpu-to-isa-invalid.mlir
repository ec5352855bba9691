// RUN: hyperdex-opt %s -p lower-lpu-to-isa --split-input-file --verify-diagnostics | filecheck %s
// What the machine cannot do is one line: where and why.

builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 100 : i64, "lpu.matrix_type" = "f16"} {
func.func @main(%ids: tensor<?xi64>, %pos: tensor<?xi64>) -> tensor<?x128xf32> {
  %e = lpu.weight "embed.weight" : tensor<128x64xf16>
  %x = lpu.embedding %e at %ids : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32> loc("model.embed")
  %l = lpu.linear %x by %e : tensor<?x64xf32>, tensor<128x64xf16> -> tensor<?x128xf32> loc("lm_head")
  func.return %l : tensor<?x128xf32>
}
}
// -----
builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 100 : i64, "lpu.matrix_type" = "f16"} {
func.func @main(%ids: tensor<?xi64>, %pos: tensor<?xi64>) -> tensor<?x64xf32> {
  %e = lpu.weight "embed.weight" : tensor<128x64xf16>
  %x = lpu.embedding %e at %ids : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32> loc("model.embed")
  %s = lpu.select_rows %x : tensor<?x64xf32>
  %t = lpu.select_rows %s : tensor<?x64xf32> loc("twice")
  func.return %t : tensor<?x64xf32>
}
}
// -----
builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 100 : i64, "lpu.matrix_type" = "f16"} {
func.func @main(%ids: tensor<?xi64>, %pos: tensor<?xi64>) -> tensor<?x64xf32> {
  %e = lpu.weight "embed.weight" : tensor<128x64xf16>
  %x = lpu.embedding %e at %ids : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32> loc("model.embed")
  %s = lpu.select_rows %x : tensor<?x64xf32>
  %c = lpu.constant 2.0 : tensor<f32>
  %d = lpu.add %c, %c : (tensor<f32>, tensor<f32>) -> tensor<f32>
  func.return %s : tensor<?x64xf32>
}
}
// -----
builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 100 : i64, "lpu.matrix_type" = "f16"} {
func.func @main(%ids: tensor<?xi64>, %pos: tensor<?xi64>) -> tensor<?x64xf32> {
  %y = lpu.reshape %ids : (tensor<?xi64>) -> tensor<1x?xi64>
  %e = lpu.weight "embed.weight" : tensor<128x64xf16>
  %x = lpu.embedding %e at %ids : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32> loc("model.embed")
  %s = lpu.select_rows %x : tensor<?x64xf32>
  func.return %s : tensor<?x64xf32>
}
}
// -----
func.func @main(%ids: tensor<?xi64>, %pos: tensor<?xi64>) -> tensor<?x64xf32> {
  %e = lpu.weight "embed.weight" : tensor<128x64xf16>
  %x = lpu.embedding %e at %ids : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32> loc("model.embed")
  %s = lpu.select_rows %x : tensor<?x64xf32>
  func.return %s : tensor<?x64xf32>
}
// -----
builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 100 : i64, "lpu.matrix_type" = "f16"} {
func.func @main(%ids: tensor<?xi64>, %pos: tensor<?xi64>) -> tensor<?x4096xf32> {
  %e = lpu.weight "w" : tensor<4000000x4096xf16>
  %x = lpu.embedding %e at %ids : (tensor<4000000x4096xf16>, tensor<?xi64>) -> tensor<?x4096xf32>
  %s = lpu.select_rows %x : tensor<?x4096xf32>
  func.return %s : tensor<?x4096xf32>
}
}

// CHECK:      error: func.return: the logits must come through lpu.select_rows
//
// CHECK:      error: lpu.select_rows at twice: rows have been selected already
//
// CHECK:      error: lpu.add: cannot take a constant or an index as this operand
//
// CHECK:      error: @main is not token-major
//
// CHECK:      error: the module has no string attribute lpu.matrix_type
//
// CHECK:      error: u55c has 17,179,869,184 bytes of HBM; the model needs 32,772,202,496: 32,768,000,000 of parameters, 0 of KV cache for 100 positions, 4,202,496 for input and output
