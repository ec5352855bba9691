// RUN: hyperdex-opt %s -p canonicalize,cse,dce --split-input-file | filecheck %s
// xDSL's own passes on our operations.

func.func @moves(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %a = lpu.reshape %x : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  %b = lpu.reshape %a : (tensor<?x4x16xf32>) -> tensor<?x8x8xf32>
  %c = lpu.reshape %b : (tensor<?x8x8xf32>) -> tensor<?x4x16xf32>
  %d = lpu.transpose %c [0, 1, 2] : (tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %e = lpu.broadcast %d : (tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %f = lpu.reshape %e : (tensor<?x4x16xf32>) -> tensor<?x64xf32>
  %g = lpu.neg %f : tensor<?x64xf32>
  func.return %g : tensor<?x64xf32>
}
// -----
func.func @squares_stay(%x: tensor<?x4x4xf32>) -> tensor<?x4x4xf32> {
  %d = lpu.transpose %x [0, 2, 1] : (tensor<?x4x4xf32>) -> tensor<?x4x4xf32>
  func.return %d : tensor<?x4x4xf32>
}
// -----
func.func @common_and_dead(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %a = lpu.weight "w" : tensor<64xf32>
  %b = lpu.weight "w" : tensor<64xf32>
  %c = lpu.add %x, %a : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
  %d = lpu.add %x, %b : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
  %e = lpu.neg %d : tensor<?x64xf32>
  %f = lpu.mul %c, %d : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %f : tensor<?x64xf32>
}
// -----
func.func @attention_is_neither_common_nor_dead(%q: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
  %a = lpu.attention %q, %q, %q slot 0 scale 1.000000e+00 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %b = lpu.attention %q, %q, %q slot 0 scale 1.000000e+00 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return %q : tensor<?x4x16xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @moves(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %g = lpu.neg %x : tensor<?x64xf32>
// CHECK-NEXT:     func.return %g : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @squares_stay(%x: tensor<?x4x4xf32>) -> tensor<?x4x4xf32> {
// CHECK-NEXT:     %d = lpu.transpose %x [0, 2, 1] : (tensor<?x4x4xf32>) -> tensor<?x4x4xf32>
// CHECK-NEXT:     func.return %d : tensor<?x4x4xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @common_and_dead(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %a = lpu.weight "w" : tensor<64xf32>
// CHECK-NEXT:     %c = lpu.add %x, %a : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %f = lpu.mul %c, %c : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %f : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @attention_is_neither_common_nor_dead(%q: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %a = lpu.attention %q, %q, %q slot 0 scale 1.000000e+00 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %b = lpu.attention %q, %q, %q slot 0 scale 1.000000e+00 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %q : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
