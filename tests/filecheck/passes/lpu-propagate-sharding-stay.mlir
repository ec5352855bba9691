// RUN: hyperdex-opt %s -p lpu-propagate-sharding --split-input-file | filecheck %s
// What stays whole, and a module for one device.

func.func @one_device(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = lpu.weight "a.weight" : tensor<64x64xf16>
  %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
// Keys that somebody else needs whole: parts that overlap cannot be gathered. Blocks of columns can.
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @keys_used_twice(%x: tensor<?x72xf32>, %qh: tensor<?x9x8xf32>) -> (tensor<?x9x8xf32>, tensor<?x3x8xf32>) {
    %wk = lpu.weight "k.weight" : tensor<24x72xf16>
    %k = lpu.linear %x by %wk : tensor<?x72xf32>, tensor<24x72xf16> -> tensor<?x24xf32>
    %kh = lpu.reshape %k : (tensor<?x24xf32>) -> tensor<?x3x8xf32>
    %o = lpu.attention %qh, %kh, %kh slot 0 scale 1.000000e+00 : (tensor<?x9x8xf32>, tensor<?x3x8xf32>, tensor<?x3x8xf32>) -> tensor<?x9x8xf32>
    func.return %o, %kh : tensor<?x9x8xf32>, tensor<?x3x8xf32>
  }
}
// -----
// Norms over columns, a matrix on each head of what is whole, a matrix whose rows have several keys.
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @whole(%x: tensor<?x64xf32>, %h: tensor<?x4x16xf32>) -> (tensor<?x64xf32>, tensor<?x4x8xf32>, tensor<?x64xf32>) {
    %n = lpu.rms_norm %x epsilon 1.000000e-05 : tensor<?x64xf32>
    %w = lpu.weight "head.weight" : tensor<8x16xf16>
    %y = lpu.linear %h by %w : tensor<?x4x16xf32>, tensor<8x16xf16> -> tensor<?x4x8xf32>
    %ab = lpu.weight "a.weight", "b.weight" : tensor<64x64xf16>
    %z = lpu.linear %n by %ab : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
    %s = lpu.silu %z : tensor<?x64xf32>
    func.return %n, %y, %s : tensor<?x64xf32>, tensor<?x4x8xf32>, tensor<?x64xf32>
  }
}
// -----
// Three rows on two devices: padding, of which a quotient or a root would make an infinity; a sum keeps it from that.
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @padding(%x: tensor<?x64xf32>) -> (tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>) {
    %w = lpu.weight "a.weight" : tensor<3x64xf16>
    %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<3x64xf16> -> tensor<?x3xf32>
    %one = lpu.constant 1.000000e+00 : tensor<f32>
    %a = lpu.div %one, %y : (tensor<f32>, tensor<?x3xf32>) -> tensor<?x3xf32>
    %b = lpu.rsqrt %y : tensor<?x3xf32>
    %e = lpu.exp %y : tensor<?x3xf32>
    %p = lpu.add %e, %one : (tensor<?x3xf32>, tensor<f32>) -> tensor<?x3xf32>
    %c = lpu.div %one, %p : (tensor<f32>, tensor<?x3xf32>) -> tensor<?x3xf32>
    func.return %a, %b, %c : tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>
  }
}
// -----
// The padding is a number whose exponential is infinite, although those of the three rows may be finite.
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @overflow(%x: tensor<?x64xf32>) -> tensor<?x3xf32> {
    %w = lpu.weight "a.weight" : tensor<3x64xf16>
    %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<3x64xf16> -> tensor<?x3xf32>
    %hundred = lpu.constant 1.000000e+02 : tensor<f32>
    %s = lpu.add %y, %hundred : (tensor<?x3xf32>, tensor<f32>) -> tensor<?x3xf32>
    %e = lpu.exp %s : tensor<?x3xf32>
    func.return %e : tensor<?x3xf32>
  }
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @one_device(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module attributes {lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @keys_used_twice(%x: tensor<?x72xf32>, %qh: tensor<?x9x8xf32>) -> (tensor<?x9x8xf32>, tensor<?x3x8xf32>) {
// CHECK-NEXT:     %wk = lpu.weight "k.weight" {lpu.sharding = #lpu.sharding<0, 12 of 24 at [0, 12]>} : tensor<24x72xf16>
// CHECK-NEXT:     %k = lpu.linear %x by %wk {lpu.sharding = #lpu.sharding<1, 12 of 24 at [0, 12]>} : tensor<?x72xf32>, tensor<24x72xf16> -> tensor<?x24xf32>
// CHECK-NEXT:     %kh = lpu.reshape %k : (tensor<?x24xf32>) -> tensor<?x3x8xf32>
// CHECK-NEXT:     %o = lpu.attention %qh, %kh, %kh slot 0 scale 1.000000e+00 {lpu.sharding = #lpu.sharding<1, 5 of 9 at [0, 5]>} : (tensor<?x9x8xf32>, tensor<?x3x8xf32>, tensor<?x3x8xf32>) -> tensor<?x9x8xf32>
// CHECK-NEXT:     func.return %o, %kh : tensor<?x9x8xf32>, tensor<?x3x8xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module attributes {lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @whole(%x: tensor<?x64xf32>, %h: tensor<?x4x16xf32>) -> (tensor<?x64xf32>, tensor<?x4x8xf32>, tensor<?x64xf32>) {
// CHECK-NEXT:     %n = lpu.rms_norm %x epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     %w = lpu.weight "head.weight" : tensor<8x16xf16>
// CHECK-NEXT:     %y = lpu.linear %h by %w : tensor<?x4x16xf32>, tensor<8x16xf16> -> tensor<?x4x8xf32>
// CHECK-NEXT:     %ab = lpu.weight "a.weight", "b.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %z = lpu.linear %n by %ab : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %s = lpu.silu %z : tensor<?x64xf32>
// CHECK-NEXT:     func.return %n, %y, %s : tensor<?x64xf32>, tensor<?x4x8xf32>, tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module attributes {lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @padding(%x: tensor<?x64xf32>) -> (tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>) {
// CHECK-NEXT:     %w = lpu.weight "a.weight" {lpu.sharding = #lpu.sharding<0, 2 of 3 at [0, 2]>} : tensor<3x64xf16>
// CHECK-NEXT:     %y = lpu.linear %x by %w {lpu.sharding = #lpu.sharding<1, 2 of 3 at [0, 2]>} : tensor<?x64xf32>, tensor<3x64xf16> -> tensor<?x3xf32>
// CHECK-NEXT:     %one = lpu.constant 1.000000e+00 : tensor<f32>
// CHECK-NEXT:     %a = lpu.div %one, %y : (tensor<f32>, tensor<?x3xf32>) -> tensor<?x3xf32>
// CHECK-NEXT:     %b = lpu.rsqrt %y : tensor<?x3xf32>
// CHECK-NEXT:     %e = lpu.exp %y {lpu.sharding = #lpu.sharding<1, 2 of 3 at [0, 2]>} : tensor<?x3xf32>
// CHECK-NEXT:     %p = lpu.add %e, %one {lpu.sharding = #lpu.sharding<1, 2 of 3 at [0, 2]>} : (tensor<?x3xf32>, tensor<f32>) -> tensor<?x3xf32>
// CHECK-NEXT:     %c = lpu.div %one, %p {lpu.sharding = #lpu.sharding<1, 2 of 3 at [0, 2]>} : (tensor<f32>, tensor<?x3xf32>) -> tensor<?x3xf32>
// CHECK-NEXT:     func.return %a, %b, %c : tensor<?x3xf32>, tensor<?x3xf32>, tensor<?x3xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module attributes {lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @overflow(%x: tensor<?x64xf32>) -> tensor<?x3xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" {lpu.sharding = #lpu.sharding<0, 2 of 3 at [0, 2]>} : tensor<3x64xf16>
// CHECK-NEXT:     %y = lpu.linear %x by %w {lpu.sharding = #lpu.sharding<1, 2 of 3 at [0, 2]>} : tensor<?x64xf32>, tensor<3x64xf16> -> tensor<?x3xf32>
// CHECK-NEXT:     %hundred = lpu.constant 1.000000e+02 : tensor<f32>
// CHECK-NEXT:     %s = lpu.add %y, %hundred {lpu.sharding = #lpu.sharding<1, 2 of 3 at [0, 2]>} : (tensor<?x3xf32>, tensor<f32>) -> tensor<?x3xf32>
// CHECK-NEXT:     %e = lpu.exp %s : tensor<?x3xf32>
// CHECK-NEXT:     func.return %e : tensor<?x3xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
