// RUN: hyperdex-opt %s | hyperdex-opt | filecheck %s
// RUN: hyperdex-opt %s --print-op-generic | hyperdex-opt | filecheck %s
// What an operation can carry besides: gates, offsets of 1, scales; and float32 numbers of every kind.

func.func @model(%ids: tensor<?xi64>, %t: tensor<99x64xf16>, %w: tensor<192x64xf16>, %b: tensor<192xf32>, %n: tensor<64xf32>, %r: tensor<?x96xf32>) {
  %x = lpu.embedding %t at %ids scale 8.000000e+00 {offset = 2 : i64} : (tensor<99x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
  %a = lpu.rms_norm %x weight %n : tensor<64xf32> unit_offset epsilon 1.000000e-06 : tensor<?x64xf32>
  %c = lpu.layer_norm %a weight %n : tensor<64xf32> unit_offset bias %n : tensor<64xf32> epsilon 1.000000e-05 : tensor<?x64xf32>
  %y = lpu.linear %c by %w gated : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
  %z = lpu.linear %c by %w gated bias %b : tensor<192xf32> scale 2.000000e+00 softcap 3.000000e+01 then silu times %r plus %y : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
  func.return
}

func.func @numbers() {
  %a = lpu.constant 0x4B800000 : tensor<f32>
  %b = lpu.constant 0xCB800000 : tensor<f32>
  %c = lpu.constant 0x7f800000 : tensor<f32>
  %d = lpu.constant 0xff800000 : tensor<f32>
  %e = lpu.constant 0x7fc00000 : tensor<f32>
  %f = lpu.constant 0x00000001 : tensor<f32>
  %g = lpu.constant -0.0 : tensor<f32>
  %h = lpu.constant 3.4028234663852886e+38 : tensor<f32>
  %i = lpu.constant 1.00000012 : tensor<f32>
  %j = lpu.constant 123456.0 : tensor<f32>
  %k = lpu.constant 16777216.0 : tensor<f32>
  func.return
}

// CHECK:        func.func @model(%ids: tensor<?xi64>, %t: tensor<99x64xf16>, %w: tensor<192x64xf16>, %b: tensor<192xf32>, %n: tensor<64xf32>, %r: tensor<?x96xf32>) {
// CHECK-NEXT:     %x = lpu.embedding %t at %ids scale 8.000000e+00 {offset = 2 : i64} : (tensor<99x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
// CHECK-NEXT:     %a = lpu.rms_norm %x weight %n : tensor<64xf32> unit_offset epsilon 1.000000e-06 : tensor<?x64xf32>
// CHECK-NEXT:     %c = lpu.layer_norm %a weight %n : tensor<64xf32> unit_offset bias %n : tensor<64xf32> epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.linear %c by %w gated : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     %z = lpu.linear %c by %w gated bias %b : tensor<192xf32> scale 2.000000e+00 softcap 3.000000e+01 then silu times %r plus %y : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @numbers() {
// CHECK-NEXT:     %a = lpu.constant 0x4B800000 : tensor<f32>
// CHECK-NEXT:     %b = lpu.constant 0xCB800000 : tensor<f32>
// CHECK-NEXT:     %c = lpu.constant 0x7f800000 : tensor<f32>
// CHECK-NEXT:     %d = lpu.constant 0xff800000 : tensor<f32>
// CHECK-NEXT:     %e = lpu.constant 0x7fc00000 : tensor<f32>
// CHECK-NEXT:     %f = lpu.constant 1.401300e-45 : tensor<f32>
// CHECK-NEXT:     %g = lpu.constant -0.000000e+00 : tensor<f32>
// CHECK-NEXT:     %h = lpu.constant 3.40282347e+38 : tensor<f32>
// CHECK-NEXT:     %i = lpu.constant 1.00000012 : tensor<f32>
// CHECK-NEXT:     %j = lpu.constant 1.234560e+05 : tensor<f32>
// CHECK-NEXT:     %k = lpu.constant 0x4B800000 : tensor<f32>
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
