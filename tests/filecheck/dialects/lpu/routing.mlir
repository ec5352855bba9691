// RUN: hyperdex-opt %s | hyperdex-opt | filecheck %s
// RUN: hyperdex-opt %s --print-op-generic | hyperdex-opt | filecheck %s

func.func @routed(%x: tensor<?x7xf32>, %s: tensor<?x6xf32>, %u: tensor<6x10x7xf16>, %ub: tensor<6x10xf32>, %d: tensor<6x7x5xf16>, %db: tensor<6x7xf32>) {
  %i = lpu.top_k %s k 3 : (tensor<?x6xf32>) -> tensor<?x3xi64>
  %g = lpu.top_k %s k 3 groups 3 top 2 : (tensor<?x6xf32>) -> tensor<?x3xi64>
  %w = lpu.take_columns %s at %i : (tensor<?x6xf32>, tensor<?x3xi64>) -> tensor<?x3xf32>
  %a = lpu.expert_linear %x by %u at %i gated bias %ub : tensor<6x10xf32> then silu : tensor<?x7xf32>, tensor<6x10x7xf16>, tensor<?x3xi64> -> tensor<?x5x3xf32>
  %b = lpu.expert_linear %x by %u at %g : tensor<?x7xf32>, tensor<6x10x7xf16>, tensor<?x3xi64> -> tensor<?x10x3xf32>
  %c = lpu.expert_linear %a by %d at %i : tensor<?x5x3xf32>, tensor<6x7x5xf16>, tensor<?x3xi64> -> tensor<?x7x3xf32>
  %y = lpu.expert_linear %a by %d at %i bias %db : tensor<6x7xf32> sum %w : tensor<?x3xf32> : tensor<?x5x3xf32>, tensor<6x7x5xf16>, tensor<?x3xi64> -> tensor<?x7xf32>
  func.return
}

// CHECK:         %i = lpu.top_k %s k 3 : (tensor<?x6xf32>) -> tensor<?x3xi64>
// CHECK-NEXT:    %g = lpu.top_k %s k 3 groups 3 top 2 : (tensor<?x6xf32>) -> tensor<?x3xi64>
// CHECK-NEXT:    %w = lpu.take_columns %s at %i : (tensor<?x6xf32>, tensor<?x3xi64>) -> tensor<?x3xf32>
// CHECK-NEXT:    %a = lpu.expert_linear %x by %u at %i gated bias %ub : tensor<6x10xf32> then silu : tensor<?x7xf32>, tensor<6x10x7xf16>, tensor<?x3xi64> -> tensor<?x5x3xf32>
// CHECK-NEXT:    %b = lpu.expert_linear %x by %u at %g : tensor<?x7xf32>, tensor<6x10x7xf16>, tensor<?x3xi64> -> tensor<?x10x3xf32>
// CHECK-NEXT:    %c = lpu.expert_linear %a by %d at %i : tensor<?x5x3xf32>, tensor<6x7x5xf16>, tensor<?x3xi64> -> tensor<?x7x3xf32>
// CHECK-NEXT:    %y = lpu.expert_linear %a by %d at %i bias %db : tensor<6x7xf32> sum %w : tensor<?x3xf32> : tensor<?x5x3xf32>, tensor<6x7x5xf16>, tensor<?x3xi64> -> tensor<?x7xf32>
