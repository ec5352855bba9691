// RUN: hyperdex-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

func.func @f(%s: tensor<?x6xf32>) {
  %i = lpu.top_k %s k 7 : (tensor<?x6xf32>) -> tensor<?x7xi64>
  func.return
}
// CHECK: lpu.top_k: k is 7, must be in 1..6

// -----

func.func @f(%s: tensor<?x6xf32>) {
  %i = lpu.top_k %s k 3 groups 3 top 1 : (tensor<?x6xf32>) -> tensor<?x3xi64>
  func.return
}
// CHECK: lpu.top_k: k is 3, must be in 1..2

// -----

func.func @f(%s: tensor<?x6xf32>) {
  %i = lpu.top_k %s k 3 groups 4 top 2 : (tensor<?x6xf32>) -> tensor<?x3xi64>
  func.return
}
// CHECK: lpu.top_k: 6 columns are not 4 equal groups

// -----

func.func @f(%s: tensor<?x6xf32>) {
  %i = lpu.top_k %s k 3 groups 6 top 4 : (tensor<?x6xf32>) -> tensor<?x3xi64>
  func.return
}
// CHECK: lpu.top_k: a group needs at least two columns

// -----

func.func @f(%s: tensor<?x6xf32>) {
  %i = lpu.top_k %s k 3 groups 3 top 4 : (tensor<?x6xf32>) -> tensor<?x3xi64>
  func.return
}
// CHECK: lpu.top_k: top 4 of 3 groups

// -----

func.func @f(%s: tensor<?x6xf32>) {
  %i = lpu.top_k %s k 3 : (tensor<?x6xf32>) -> tensor<?x3xf32>
  func.return
}
// CHECK: lpu.top_k: indices must be i64

// -----

func.func @f(%s: tensor<?x6xf32>, %i: tensor<?x3xi64>) {
  %w = lpu.take_columns %s at %i : (tensor<?x6xf32>, tensor<?x3xi64>) -> tensor<?x6xf32>
  func.return
}
// CHECK: lpu.take_columns: result shape

// -----

func.func @f(%x: tensor<?x7xf32>, %w: tensor<6x10x5xf16>, %i: tensor<?x3xi64>) {
  %y = lpu.expert_linear %x by %w at %i : tensor<?x7xf32>, tensor<6x10x5xf16>, tensor<?x3xi64> -> tensor<?x10x3xf32>
  func.return
}
// CHECK: lpu.expert_linear: x must be [?, 5] or [?, 5, 3]

// -----

func.func @f(%x: tensor<?x7xf32>, %w: tensor<6x10x7xf32>, %i: tensor<?x3xi64>) {
  %y = lpu.expert_linear %x by %w at %i : tensor<?x7xf32>, tensor<6x10x7xf32>, tensor<?x3xi64> -> tensor<?x10x3xf32>
  func.return
}
// CHECK: lpu.expert_linear: the weight must be f16 or bf16

// -----

func.func @f(%x: tensor<?x7xf32>, %w: tensor<10x7xf16>, %i: tensor<?x3xi64>) {
  %y = lpu.expert_linear %x by %w at %i : tensor<?x7xf32>, tensor<10x7xf16>, tensor<?x3xi64> -> tensor<?x10x3xf32>
  func.return
}
// CHECK: lpu.expert_linear: the weight must be [E, N, K]

// -----

func.func @f(%x: tensor<?x7xf32>, %w: tensor<6x9x7xf16>, %i: tensor<?x3xi64>) {
  %y = lpu.expert_linear %x by %w at %i gated : tensor<?x7xf32>, tensor<6x9x7xf16>, tensor<?x3xi64> -> tensor<?x4x3xf32>
  func.return
}
// CHECK: lpu.expert_linear: gated needs a weight of 2N rows

// -----

func.func @f(%x: tensor<?x7xf32>, %w: tensor<6x10x7xf16>, %i: tensor<?x3xi64>) {
  %y = lpu.expert_linear %x by %w at %i gated : tensor<?x7xf32>, tensor<6x10x7xf16>, tensor<?x3xi64> -> tensor<?x10x3xf32>
  func.return
}
// CHECK: lpu.expert_linear: result shape

// -----

func.func @f(%x: tensor<?x7xf32>, %w: tensor<6x10x7xf16>, %b: tensor<10xf32>, %i: tensor<?x3xi64>) {
  %y = lpu.expert_linear %x by %w at %i bias %b : tensor<10xf32> : tensor<?x7xf32>, tensor<6x10x7xf16>, tensor<?x3xi64> -> tensor<?x10x3xf32>
  func.return
}
// CHECK: lpu.expert_linear: the bias must have a row of the weight's rows for each expert

// -----

func.func @f(%x: tensor<?x7xf32>, %w: tensor<6x10x7xf16>, %s: tensor<?x2xf32>, %i: tensor<?x3xi64>) {
  %y = lpu.expert_linear %x by %w at %i sum %s : tensor<?x2xf32> : tensor<?x7xf32>, tensor<6x10x7xf16>, tensor<?x3xi64> -> tensor<?x10xf32>
  func.return
}
// CHECK: lpu.expert_linear: sum must be [?, 3]

// -----

func.func @f(%x: tensor<?x7xf32>, %w: tensor<6x10x7xf16>, %i: tensor<?x3xi64>) {
  %y = lpu.expert_linear %x by %w at %i then sign : tensor<?x7xf32>, tensor<6x10x7xf16>, tensor<?x3xi64> -> tensor<?x10x3xf32>
  func.return
}
// CHECK: expected one of relu, silu, gelu, gelu_tanh, sigmoid, tanh
