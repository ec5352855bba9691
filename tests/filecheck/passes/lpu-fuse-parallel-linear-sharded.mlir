// RUN: hyperdex-opt %s -p lpu-fuse-parallel-linear --split-input-file | filecheck %s
// What a device holds of several matrices becomes one as whole matrices do; a part and a whole matrix stay two.

func.func @projections(%x: tensor<?x72xf32>) -> tensor<?x5x8xf32> {
  %wq = lpu.weight "a.q.weight" shards [#lpu.sharding<0, 40 of 72 at [0, 40]>] : tensor<40x72xf16>
  %wk = lpu.weight "a.k.weight" shards [#lpu.sharding<0, 16 of 24 at [0, 8]>] : tensor<16x72xf16>
  %wv = lpu.weight "a.v.weight" shards [#lpu.sharding<0, 16 of 24 at [0, 8]>] : tensor<16x72xf16>
  %q = lpu.linear %x by %wq : tensor<?x72xf32>, tensor<40x72xf16> -> tensor<?x40xf32>
  %k = lpu.linear %x by %wk : tensor<?x72xf32>, tensor<16x72xf16> -> tensor<?x16xf32>
  %v = lpu.linear %x by %wv : tensor<?x72xf32>, tensor<16x72xf16> -> tensor<?x16xf32>
  %qh = lpu.reshape %q : (tensor<?x40xf32>) -> tensor<?x5x8xf32>
  %kh = lpu.reshape %k : (tensor<?x16xf32>) -> tensor<?x2x8xf32>
  %vh = lpu.reshape %v : (tensor<?x16xf32>) -> tensor<?x2x8xf32>
  %o = lpu.attention %qh, %kh, %vh slot 0 scale 1.000000e+00 kv_heads "kv_heads.9.3" [0, 0, 0, 1, 1, 0, 1, 1, 1, 0] : (tensor<?x5x8xf32>, tensor<?x2x8xf32>, tensor<?x2x8xf32>) -> tensor<?x5x8xf32>
  func.return %o : tensor<?x5x8xf32>
}
// -----
func.func @halves_of_one(%x: tensor<?x64xf32>) -> tensor<?x33xf32> {
  %w = lpu.weight "weight", "weight" in "gate_up" shards [#lpu.sharding<0, 33 of 65 at [0, 33]>, #lpu.sharding<0, 33 of 130 at [65, 98]>] : tensor<66x64xf16>
  %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<66x64xf16> -> tensor<?x66xf32>
  %g = lpu.slice %y dim 1 from 0 to 33 : (tensor<?x66xf32>) -> tensor<?x33xf32>
  %u = lpu.slice %y dim 1 from 33 to 66 : (tensor<?x66xf32>) -> tensor<?x33xf32>
  %a = lpu.silu %g : tensor<?x33xf32>
  %z = lpu.mul %a, %u : (tensor<?x33xf32>, tensor<?x33xf32>) -> tensor<?x33xf32>
  func.return %z : tensor<?x33xf32>
}
// -----
func.func @one_of_two_sharded(%x: tensor<?x64xf32>) -> tensor<?x32xf32> {
  %wg = lpu.weight "gate.weight" shards [#lpu.sharding<0, 32 of 64 at [0, 32]>] : tensor<32x64xf16>
  %wu = lpu.weight "up.weight" : tensor<32x64xf16>
  %g = lpu.linear %x by %wg : tensor<?x64xf32>, tensor<32x64xf16> -> tensor<?x32xf32>
  %u = lpu.linear %x by %wu : tensor<?x64xf32>, tensor<32x64xf16> -> tensor<?x32xf32>
  %z = lpu.mul %g, %u : (tensor<?x32xf32>, tensor<?x32xf32>) -> tensor<?x32xf32>
  func.return %z : tensor<?x32xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @projections(%x: tensor<?x72xf32>) -> tensor<?x5x8xf32> {
// CHECK-NEXT:     %0 = lpu.weight "v.weight", "k.weight", "q.weight" in "a" shards [#lpu.sharding<0, 16 of 24 at [0, 8]>, #lpu.sharding<0, 16 of 24 at [0, 8]>, #lpu.sharding<0, 40 of 72 at [0, 40]>] : tensor<72x72xf16>
// CHECK-NEXT:     %vkq = lpu.linear %x by %0 : tensor<?x72xf32>, tensor<72x72xf16> -> tensor<?x72xf32>
// CHECK-NEXT:     %v = lpu.slice %vkq dim 1 from 0 to 16 : (tensor<?x72xf32>) -> tensor<?x16xf32>
// CHECK-NEXT:     %k = lpu.slice %vkq dim 1 from 16 to 32 : (tensor<?x72xf32>) -> tensor<?x16xf32>
// CHECK-NEXT:     %q = lpu.slice %vkq dim 1 from 32 to 72 : (tensor<?x72xf32>) -> tensor<?x40xf32>
// CHECK-NEXT:     %qh = lpu.reshape %q : (tensor<?x40xf32>) -> tensor<?x5x8xf32>
// CHECK-NEXT:     %kh = lpu.reshape %k : (tensor<?x16xf32>) -> tensor<?x2x8xf32>
// CHECK-NEXT:     %vh = lpu.reshape %v : (tensor<?x16xf32>) -> tensor<?x2x8xf32>
// CHECK-NEXT:     %o = lpu.attention %qh, %kh, %vh slot 0 scale 1.000000e+00 kv_heads "kv_heads.9.3" [0, 0, 0, 1, 1, 0, 1, 1, 1, 0] : (tensor<?x5x8xf32>, tensor<?x2x8xf32>, tensor<?x2x8xf32>) -> tensor<?x5x8xf32>
// CHECK-NEXT:     func.return %o : tensor<?x5x8xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @halves_of_one(%x: tensor<?x64xf32>) -> tensor<?x33xf32> {
// CHECK-NEXT:     %w = lpu.weight "weight", "weight" in "gate_up" shards [#lpu.sharding<0, 33 of 65 at [0, 33]>, #lpu.sharding<0, 33 of 130 at [65, 98]>] : tensor<66x64xf16>
// CHECK-NEXT:     %z = lpu.linear %x by %w gated then silu : tensor<?x64xf32>, tensor<66x64xf16> -> tensor<?x33xf32>
// CHECK-NEXT:     func.return %z : tensor<?x33xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @one_of_two_sharded(%x: tensor<?x64xf32>) -> tensor<?x32xf32> {
// CHECK-NEXT:     %wg = lpu.weight "gate.weight" shards [#lpu.sharding<0, 32 of 64 at [0, 32]>] : tensor<32x64xf16>
// CHECK-NEXT:     %wu = lpu.weight "up.weight" : tensor<32x64xf16>
// CHECK-NEXT:     %g = lpu.linear %x by %wg : tensor<?x64xf32>, tensor<32x64xf16> -> tensor<?x32xf32>
// CHECK-NEXT:     %u = lpu.linear %x by %wu : tensor<?x64xf32>, tensor<32x64xf16> -> tensor<?x32xf32>
// CHECK-NEXT:     %z = lpu.mul %g, %u : (tensor<?x32xf32>, tensor<?x32xf32>) -> tensor<?x32xf32>
// CHECK-NEXT:     func.return %z : tensor<?x32xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
