// RUN: hyperdex-opt %s | hyperdex-opt | filecheck %s
// RUN: hyperdex-opt %s --print-op-generic | hyperdex-opt | filecheck %s
// Slopes and sinks, each alone and both.

func.func @parameters_of_heads(%q: tensor<?x4x16xf32>, %h: tensor<4xf32>) {
  %a = lpu.attention %q, %q, %q slot 0 scale 2.500000e-01 slopes %h : tensor<4xf32> : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %b = lpu.attention %q, %q, %a slot 1 scale 2.500000e-01 window 7 softcap 5.000000e+01 slopes %h : tensor<4xf32> bf16_bias sinks %h : tensor<4xf32> : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %c = lpu.attention %q, %q, %b slot 2 scale 2.500000e-01 sinks %h : tensor<4xf32> : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return
}

// CHECK:        func.func @parameters_of_heads(%q: tensor<?x4x16xf32>, %h: tensor<4xf32>) {
// CHECK-NEXT:     %a = lpu.attention %q, %q, %q slot 0 scale 2.500000e-01 slopes %h : tensor<4xf32> : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %b = lpu.attention %q, %q, %a slot 1 scale 2.500000e-01 window 7 softcap 5.000000e+01 slopes %h : tensor<4xf32> bf16_bias sinks %h : tensor<4xf32> : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %c = lpu.attention %q, %q, %b slot 2 scale 2.500000e-01 sinks %h : tensor<4xf32> : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
