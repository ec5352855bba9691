// RUN: hyperdex-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s
// A module for several devices in which something is not for as many.

builtin.module attributes {lpu.grid = #lpu.grid<two>} {}
// CHECK: Expected integer literal

// -----

builtin.module attributes {lpu.grid = #lpu.grid<-2>} {}
// CHECK: lpu.grid: the number of devices must be positive

// -----

builtin.module attributes {lpu.grid = 4 : i64} {}
// CHECK: lpu.grid of a module must be an #lpu.grid<devices>, not 4 : i64

// -----

builtin.module attributes {s = #lpu.sharding<1, 2 at [0, 2]>} {}
// CHECK: Expected 'of'

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.silu %x {lpu.sharding = "columns"} : tensor<?x64xf32>
  func.return
}
// CHECK: lpu.silu: lpu.sharding must be an #lpu.sharding<...>, not "columns"

// -----

func.func @f(%x: tensor<?x64xf32>) {
  func.return {lpu.sharding = #lpu.sharding<1, 32 of 64 at [0, 32]>}
}
// CHECK: func.return: has no tensor to shard

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.silu %x {lpu.sharding = #lpu.sharding<0, 32 of 64 at [0, 32]>} : tensor<?x64xf32>
  func.return
}
// CHECK: lpu.silu: dimension 0 is that of the tokens, it is not sharded

// -----

func.func @f(%x: tensor<?x64xf32>) {
  %y = lpu.silu %x {lpu.sharding = #lpu.sharding<1, 40 of 80 at [0, 40]>} : tensor<?x64xf32>
  func.return
}
// CHECK: lpu.silu: sharded up to 80, dimension 1 has 64

// -----

builtin.module attributes {lpu.grid = #lpu.grid<3>} {
  func.func @f(%x: tensor<?x32xf32>) {
    %y = lpu.all_gather %x over 2 : (tensor<?x32xf32>) -> tensor<?x64xf32>
    func.return
  }
}
// CHECK: lpu.all_gather: gathers over 2 devices, the module is for 3

// -----

builtin.module attributes {lpu.grid = #lpu.grid<3>} {
  func.func @f() {
    %w = lpu.weight "a.bias" shards [#lpu.sharding<0, 2 of 4 at [0, 2]>] : tensor<2xf32>
    func.return
  }
}
// CHECK: lpu.weight: shards for 2 devices, the module is for 3

// -----

builtin.module attributes {lpu.grid = #lpu.grid<3>} {
  func.func @f(%q: tensor<?x2x16xf32>, %k: tensor<?x2x16xf32>) {
    %o = lpu.attention %q, %k, %k slot 0 scale 1.000000e+00 kv_heads "kv" [0, 0, 1, 1] : (tensor<?x2x16xf32>, tensor<?x2x16xf32>, tensor<?x2x16xf32>) -> tensor<?x2x16xf32>
    func.return
  }
}
// CHECK: lpu.attention: kv_heads for 2 devices, the module is for 3

// -----

builtin.module attributes {lpu.grid = #lpu.grid<3>} {
  func.func @main() {
    %h = isa.buffer : !isa.lmu<tokens x 576>
    isa.send src=%h hop=0 parts=4 pitch=144 columns=144 rows=tokens
    func.return
  }
}
// CHECK: isa.send: parts of 4 devices, the module is for 3

// -----

builtin.module attributes {lpu.grid = #lpu.grid<3>} {
  func.func @main() {
    %h = isa.buffer : !isa.lmu<tokens x 576>
    isa.receive dst=%h hop=1 parts=2 pitch=144 columns=144 rows=tokens
    func.return
  }
}
// CHECK: isa.receive: parts of 2 devices, the module is for 3
