// RUN: hyperdex-opt %s -p lpu-partition --split-input-file --verify-diagnostics --no-repro | filecheck %s
// Shardings that no device can compute or hold.

builtin.module attributes {lpu.grid = #lpu.grid<4>} {
  func.func @f(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
    %y = lpu.silu %x {lpu.sharding = #lpu.sharding<1, 32 of 64 at [0, 32]>} : tensor<?x64xf32>
    func.return %y : tensor<?x64xf32>
  }
}
// CHECK: lpu.silu: sharded over 2 devices, the module is for 4
// -----
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @f(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
    %y = lpu.silu %x {lpu.sharding = #lpu.sharding<2, 32 of 64 at [0, 32]>} : tensor<?x64xf32>
    func.return %y : tensor<?x64xf32>
  }
}
// CHECK: lpu.silu: has no dimension 2 to shard
// -----
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @f(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
    %y = lpu.rms_norm %x epsilon 1.000000e-05 {lpu.sharding = #lpu.sharding<1, 32 of 64 at [0, 32]>} : tensor<?x64xf32> loc("model.norm")
    func.return %y : tensor<?x64xf32>
  }
}
// CHECK: lpu.rms_norm at model.norm: cannot be computed in parts like this
// -----
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @f() -> tensor<4xf32> {
    %w = lpu.weight "a", "b" {lpu.sharding = #lpu.sharding<0, 2 of 4 at [0, 2]>} : tensor<4xf32>
    func.return %w : tensor<4xf32>
  }
}
// CHECK: lpu.weight: only the parameter of a single key can be sharded
// -----
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @f() -> tensor<4xf32> {
    %w = lpu.weight "a" {lpu.sharding = #lpu.sharding<0, 2 of 4 at [0, 2]>} : tensor<4xf32>
    func.return %w : tensor<4xf32>
  }
}
// CHECK: lpu.weight: is needed whole, and cannot be gathered
// -----
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @f(%x: tensor<?x3x8xf32>) -> tensor<?x3x8xf32> {
    %y = lpu.silu %x {lpu.sharding = #lpu.sharding<1, 2 of 3 at [0, 1]>} : tensor<?x3x8xf32>
    func.return %y : tensor<?x3x8xf32>
  }
}
// CHECK: lpu.silu: needs a part of a value that cannot be had of the whole
// -----
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @f(%q: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
    %o = lpu.attention %q, %q, %q slot 0 scale 1.000000e+00 {lpu.sharding = #lpu.sharding<1, 3 of 4 at [0, 3]>} : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
    func.return %o : tensor<?x4x16xf32>
  }
}
// CHECK: lpu.attention: query heads are sharded by blocks
// -----
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @f(%x: tensor<?x64xf32>) -> tensor<?x32xf32> {
    %w = lpu.weight "a" {lpu.sharding = #lpu.sharding<0, 32 of 64 at [0, 32]>} : tensor<64x64xf16>
    %y = lpu.linear %x by %w {lpu.sharding = #lpu.sharding<1, 32 of 64 at [0, 32]>} : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
    %s = lpu.slice %y dim 1 from 0 to 32 {lpu.sharding = #lpu.sharding<1, 16 of 32 at [0, 16]>} : (tensor<?x64xf32>) -> tensor<?x32xf32>
    func.return %s : tensor<?x32xf32>
  }
}
// CHECK: lpu.slice: is not a segment of what it is cut out of
