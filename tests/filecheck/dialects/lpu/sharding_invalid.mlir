// RUN: hyperdex-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s
// Every check of what several devices add to the dialect.

builtin.module attributes {lpu.grid = #lpu.grid<0>} {}
// CHECK: lpu.grid: the number of devices must be positive

// -----

builtin.module attributes {lpu.grid = #lpu.grid<1025>} {}
// CHECK: lpu.grid: 1025 devices, at most 1024 are possible

// -----

builtin.module attributes {s = #lpu.sharding<0, 2 of 4 at [0, 5]>} {}
// CHECK: lpu.sharding: a segment outside 0..4

// -----

builtin.module attributes {s = #lpu.sharding<0, 0 of 4 at [0, 2]>} {}
// CHECK: lpu.sharding: a segment outside 0..4

// -----

builtin.module attributes {s = #lpu.sharding<0, 2 of 4 at [0, 2], 1 of 4 at [0]>} {}
// CHECK: lpu.sharding: every segment needs a start for each device

// -----

builtin.module attributes {s = #lpu.sharding<0>} {}
// CHECK: lpu.sharding: every segment needs a start for each device

// -----

builtin.module attributes {s = #lpu.sharding<-1, 2 of 4 at [0, 2]>} {}
// CHECK: lpu.sharding: negative dimension

// -----

func.func @f() {
  %w = lpu.weight "a", "b" shards [#lpu.sharding<0, 2 of 4 at [0, 2]>] : tensor<2xf32>
  func.return
}
// CHECK: lpu.weight: needs a shard for each key

// -----

func.func @f() {
  %w = lpu.weight "a" shards [#lpu.sharding<0, 2 of 4 at [0, 2], 2 of 8 at [4, 6]>] : tensor<4xf32>
  func.return
}
// CHECK: lpu.weight: a shard is one segment

// -----

func.func @f() {
  %w = lpu.weight "a", "b" shards [#lpu.sharding<0, 2 of 4 at [0, 2]>, #lpu.sharding<0, 2 of 4 at [0, 2, 4]>] : tensor<4xf32>
  func.return
}
// CHECK: lpu.weight: shards for different numbers of devices

// -----

func.func @f() {
  %w = lpu.weight "a", "b" shards [#lpu.sharding<1, 2 of 4 at [0, 2]>, #lpu.sharding<1, 2 of 4 at [0, 2]>] : tensor<3x4xf16>
  func.return
}
// CHECK: lpu.weight: shards are rows, or columns of one key

// -----

func.func @f() {
  %w = lpu.weight "a" shards [#lpu.sharding<0, 2 of 4 at [0, 2]>] : tensor<4xf32>
  func.return
}
// CHECK: lpu.weight: the shards have 2 elements along 0

// -----

func.func @f() {
  %w = lpu.weight "a" shards [#lpu.sharding<1, 2 of 4 at [0, 2]>] : tensor<2xf32>
  func.return
}
// CHECK: lpu.weight: the shards have 2 elements along 1

// -----

func.func @f() {
  %w = lpu.weight "a" shards [unit] : tensor<2xf32>
  func.return
}
// CHECK: lpu.weight: a shard is an #lpu.sharding

// -----

func.func @f() {
  %y = "lpu.all_gather"() <{devices = 2 : i64}> : () -> tensor<?x4xf32>
  func.return
}
// CHECK: lpu.all_gather: needs a value to gather

// -----

func.func @f(%x: tensor<?x4xf32>) {
  %y = lpu.all_gather %x over 0 : (tensor<?x4xf32>) -> tensor<?x4xf32>
  func.return
}
// CHECK: lpu.all_gather: the number of devices must be positive

// -----

func.func @f(%x: tensor<?x32xf32>) {
  %y = lpu.all_gather %x over 1025 : (tensor<?x32xf32>) -> tensor<?x64xf32>
  func.return
}
// CHECK: lpu.all_gather: 1025 devices, at most 1024 are possible

// -----

func.func @f(%x: tensor<?x4xf32>) {
  %y = lpu.all_gather %x, %x over 2 : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x17xf32>
  func.return
}
// CHECK: lpu.all_gather: 17 columns of the 16 that there are

// -----

func.func @f(%x: tensor<?x2x4xf32>) {
  %y = lpu.all_gather %x over 2 : (tensor<?x2x4xf32>) -> tensor<?x4x4xf32>
  func.return
}
// CHECK: lpu.all_gather: values must be [?, columns]

// -----

func.func @f(%x: tensor<?x4xi64>) {
  %y = lpu.select_columns %x : (tensor<?x4xi64>) -> tensor<?x2xi64>
  func.return
}
// CHECK: lpu.select_columns: values must be f32

// -----

func.func @f(%x: tensor<?x4xf32>) {
  %y = lpu.select_columns %x : (tensor<?x4xf32>) -> tensor<?x5xf32>
  func.return
}
// CHECK: lpu.select_columns: 5 columns of 4

// -----

func.func @f(%q: tensor<?x3x16xf32>, %k: tensor<?x2x16xf32>) {
  %o = lpu.attention %q, %k, %k slot 0 scale 1.000000e+00 kv_heads "kv" [0, 0, 1, 0] : (tensor<?x3x16xf32>, tensor<?x2x16xf32>, tensor<?x2x16xf32>) -> tensor<?x3x16xf32>
  func.return
}
// CHECK: lpu.attention: kv_heads must have 3 numbers for each device

// -----

func.func @f(%q: tensor<?x3x16xf32>, %k: tensor<?x2x16xf32>) {
  %o = lpu.attention %q, %k, %k slot 0 scale 1.000000e+00 kv_heads "kv" [0, 0, 2] : (tensor<?x3x16xf32>, tensor<?x2x16xf32>, tensor<?x2x16xf32>) -> tensor<?x3x16xf32>
  func.return
}
// CHECK: lpu.attention: kv_heads outside 0..1

// -----

func.func @f(%q: tensor<?x2x16xf32>, %k: tensor<?x2x16xf32>) {
  %o = "lpu.attention"(%q, %k, %k) <{slot = 0 : i64, scale = 1.000000e+00 : f32, kv_heads = array<i64: 0, 1>, operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}> : (tensor<?x2x16xf32>, tensor<?x2x16xf32>, tensor<?x2x16xf32>) -> tensor<?x2x16xf32>
  func.return
}
// CHECK: lpu.attention: kv_heads needs its key
