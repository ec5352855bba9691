// RUN: hyperdex-opt %s -p lpu-partition --split-input-file | filecheck %s
// Local types, shards, and collectives where a whole value meets a part.

builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @attention(%x: tensor<?x72xf32>, %qh: tensor<?x9x8xf32>) -> tensor<?x72xf32> {
    %wk = lpu.weight "k.weight" {lpu.sharding = #lpu.sharding<0, 16 of 24 at [0, 8]>} : tensor<24x72xf16>
    %bk = lpu.weight "k.bias" {lpu.sharding = #lpu.sharding<0, 16 of 24 at [0, 8]>} : tensor<24xf32>
    %k = lpu.linear %x by %wk bias %bk : tensor<24xf32> {lpu.sharding = #lpu.sharding<1, 16 of 24 at [0, 8]>} : tensor<?x72xf32>, tensor<24x72xf16> -> tensor<?x24xf32>
    %kh = lpu.reshape %k {lpu.sharding = #lpu.sharding<1, 2 of 3 at [0, 1]>} : (tensor<?x24xf32>) -> tensor<?x3x8xf32>
    %o = lpu.attention %qh, %kh, %kh slot 0 scale 1.000000e+00 {lpu.sharding = #lpu.sharding<1, 5 of 9 at [0, 5]>} : (tensor<?x9x8xf32>, tensor<?x3x8xf32>, tensor<?x3x8xf32>) -> tensor<?x9x8xf32>
    %of = lpu.reshape %o : (tensor<?x9x8xf32>) -> tensor<?x72xf32>
    %wo = lpu.weight "o.weight" {lpu.sharding = #lpu.sharding<0, 36 of 72 at [0, 36]>} : tensor<72x72xf16>
    %y = lpu.linear %of by %wo {lpu.sharding = #lpu.sharding<1, 36 of 72 at [0, 36]>} : tensor<?x72xf32>, tensor<72x72xf16> -> tensor<?x72xf32>
    %h = lpu.add %x, %y {lpu.sharding = #lpu.sharding<1, 36 of 72 at [0, 36]>} : (tensor<?x72xf32>, tensor<?x72xf32>) -> tensor<?x72xf32>
    %n = lpu.rms_norm %h epsilon 1.000000e-05 : tensor<?x72xf32>
    %z = lpu.mul %h, %x {lpu.sharding = #lpu.sharding<1, 36 of 72 at [0, 36]>} : (tensor<?x72xf32>, tensor<?x72xf32>) -> tensor<?x72xf32>
    %s = lpu.add %z, %n {lpu.sharding = #lpu.sharding<1, 36 of 72 at [0, 36]>} : (tensor<?x72xf32>, tensor<?x72xf32>) -> tensor<?x72xf32>
    func.return %s : tensor<?x72xf32>
  }
}
// -----
// Keys and values that are whole: the table counts from the first KV head.
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @whole_keys(%qh: tensor<?x9x8xf32>, %kh: tensor<?x3x8xf32>) -> tensor<?x9x8xf32> {
    %o = lpu.attention %qh, %kh, %kh slot 0 scale 1.000000e+00 {lpu.sharding = #lpu.sharding<1, 5 of 9 at [0, 5]>} : (tensor<?x9x8xf32>, tensor<?x3x8xf32>, tensor<?x3x8xf32>) -> tensor<?x9x8xf32>
    func.return %o : tensor<?x9x8xf32>
  }
}
// -----
// A part of each cut of a matrix's result; one tensor gives several parts of one parameter.
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @fused(%x: tensor<?x64xf32>) -> tensor<?x4x16xf32> {
    %w = lpu.weight "qkv.weight" {lpu.sharding = #lpu.sharding<0, 32 of 64 at [0, 32], 16 of 80 at [64, 64], 16 of 96 at [80, 80]>} : tensor<96x64xf16>
    %y = lpu.linear %x by %w {lpu.sharding = #lpu.sharding<1, 32 of 64 at [0, 32], 16 of 80 at [64, 64], 16 of 96 at [80, 80]>} : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
    %r = lpu.reshape %y {lpu.sharding = #lpu.sharding<2, 32 of 64 at [0, 32], 16 of 80 at [64, 64], 16 of 96 at [80, 80]>} : (tensor<?x96xf32>) -> tensor<?x1x96xf32>
    %q = lpu.slice %r dim 2 from 0 to 64 {lpu.sharding = #lpu.sharding<2, 32 of 64 at [0, 32]>} : (tensor<?x1x96xf32>) -> tensor<?x1x64xf32>
    %k = lpu.slice %r dim 2 from 64 to 80 {lpu.sharding = #lpu.sharding<1, 1 of 1 at [0, 0]>} : (tensor<?x1x96xf32>) -> tensor<?x1x16xf32>
    %v = lpu.slice %r dim 2 from 80 to 96 {lpu.sharding = #lpu.sharding<1, 1 of 1 at [0, 0]>} : (tensor<?x1x96xf32>) -> tensor<?x1x16xf32>
    %qh = lpu.reshape %q {lpu.sharding = #lpu.sharding<1, 2 of 4 at [0, 2]>} : (tensor<?x1x64xf32>) -> tensor<?x4x16xf32>
    %o = lpu.attention %qh, %k, %v slot 0 scale 1.000000e+00 {lpu.sharding = #lpu.sharding<1, 2 of 4 at [0, 2]>} : (tensor<?x4x16xf32>, tensor<?x1x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
    func.return %o : tensor<?x4x16xf32>
  }
}
// -----
// From layer to layer values go whole, so that the layers stay alike.
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @layers(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
    %q = lpu.reshape %x : (tensor<?x64xf32>) -> tensor<?x4x16xf32> loc("layers.0.attention")
    %o = lpu.attention %q, %q, %q slot 0 scale 1.000000e+00 {lpu.sharding = #lpu.sharding<1, 2 of 4 at [0, 2]>} : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("layers.0.attention")
    %y = lpu.reshape %o {lpu.sharding = #lpu.sharding<1, 32 of 64 at [0, 32]>} : (tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("layers.0.attention")
    %a = lpu.silu %y {lpu.sharding = #lpu.sharding<1, 32 of 64 at [0, 32]>} : tensor<?x64xf32> loc("layers.0")
    %b = lpu.silu %a {lpu.sharding = #lpu.sharding<1, 32 of 64 at [0, 32]>} : tensor<?x64xf32> loc("layers.1")
    func.return %b : tensor<?x64xf32>
  }
}
// -----
builtin.module {
  func.func @one_device(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
    %w = lpu.weight "a.weight" : tensor<64x64xf16>
    %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
    func.return %y : tensor<?x64xf32>
  }
}

// CHECK:      builtin.module attributes {lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @attention(%x: tensor<?x72xf32>, %qh: tensor<?x9x8xf32>) -> tensor<?x72xf32> {
// CHECK-NEXT:     %wk = lpu.weight "k.weight" shards [#lpu.sharding<0, 16 of 24 at [0, 8]>] : tensor<16x72xf16>
// CHECK-NEXT:     %bk = lpu.weight "k.bias" shards [#lpu.sharding<0, 16 of 24 at [0, 8]>] : tensor<16xf32>
// CHECK-NEXT:     %k = lpu.linear %x by %wk bias %bk : tensor<16xf32> : tensor<?x72xf32>, tensor<16x72xf16> -> tensor<?x16xf32>
// CHECK-NEXT:     %kh = lpu.reshape %k : (tensor<?x16xf32>) -> tensor<?x2x8xf32>
// CHECK-NEXT:     %qh_1 = lpu.reshape %qh : (tensor<?x9x8xf32>) -> tensor<?x72xf32>
// CHECK-NEXT:     %qh_2 = lpu.select_columns %qh_1 : (tensor<?x72xf32>) -> tensor<?x40xf32>
// CHECK-NEXT:     %qh_3 = lpu.reshape %qh_2 : (tensor<?x40xf32>) -> tensor<?x5x8xf32>
// CHECK-NEXT:     %o = lpu.attention %qh_3, %kh, %kh slot 0 scale 1.000000e+00 kv_heads "kv_heads.9.3" [0, 0, 0, 1, 1, 0, 1, 1, 1, 0] : (tensor<?x5x8xf32>, tensor<?x2x8xf32>, tensor<?x2x8xf32>) -> tensor<?x5x8xf32>
// CHECK-NEXT:     %o_1 = lpu.reshape %o : (tensor<?x5x8xf32>) -> tensor<?x40xf32>
// CHECK-NEXT:     %o_2 = lpu.all_gather %o_1 over 2 : (tensor<?x40xf32>) -> tensor<?x72xf32>
// CHECK-NEXT:     %o_3 = lpu.reshape %o_2 : (tensor<?x72xf32>) -> tensor<?x9x8xf32>
// CHECK-NEXT:     %of = lpu.reshape %o_3 : (tensor<?x9x8xf32>) -> tensor<?x72xf32>
// CHECK-NEXT:     %wo = lpu.weight "o.weight" shards [#lpu.sharding<0, 36 of 72 at [0, 36]>] : tensor<36x72xf16>
// CHECK-NEXT:     %y = lpu.linear %of by %wo : tensor<?x72xf32>, tensor<36x72xf16> -> tensor<?x36xf32>
// CHECK-NEXT:     %x_1 = lpu.select_columns %x : (tensor<?x72xf32>) -> tensor<?x36xf32>
// CHECK-NEXT:     %h = lpu.add %x_1, %y : (tensor<?x36xf32>, tensor<?x36xf32>) -> tensor<?x36xf32>
// CHECK-NEXT:     %h_1 = lpu.all_gather %h over 2 : (tensor<?x36xf32>) -> tensor<?x72xf32>
// CHECK-NEXT:     %n = lpu.rms_norm %h_1 epsilon 1.000000e-05 : tensor<?x72xf32>
// CHECK-NEXT:     %z = lpu.mul %h, %x_1 : (tensor<?x36xf32>, tensor<?x36xf32>) -> tensor<?x36xf32>
// CHECK-NEXT:     %n_1 = lpu.select_columns %n : (tensor<?x72xf32>) -> tensor<?x36xf32>
// CHECK-NEXT:     %s = lpu.add %z, %n_1 : (tensor<?x36xf32>, tensor<?x36xf32>) -> tensor<?x36xf32>
// CHECK-NEXT:     %s_1 = lpu.all_gather %s over 2 : (tensor<?x36xf32>) -> tensor<?x72xf32>
// CHECK-NEXT:     func.return %s_1 : tensor<?x72xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module attributes {lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @whole_keys(%qh: tensor<?x9x8xf32>, %kh: tensor<?x3x8xf32>) -> tensor<?x9x8xf32> {
// CHECK-NEXT:     %qh_1 = lpu.reshape %qh : (tensor<?x9x8xf32>) -> tensor<?x72xf32>
// CHECK-NEXT:     %qh_2 = lpu.select_columns %qh_1 : (tensor<?x72xf32>) -> tensor<?x40xf32>
// CHECK-NEXT:     %qh_3 = lpu.reshape %qh_2 : (tensor<?x40xf32>) -> tensor<?x5x8xf32>
// CHECK-NEXT:     %o = lpu.attention %qh_3, %kh, %kh slot 0 scale 1.000000e+00 kv_heads "kv_heads.9.3.all" [0, 0, 0, 1, 1, 1, 2, 2, 2, 0] : (tensor<?x5x8xf32>, tensor<?x3x8xf32>, tensor<?x3x8xf32>) -> tensor<?x5x8xf32>
// CHECK-NEXT:     %o_1 = lpu.reshape %o : (tensor<?x5x8xf32>) -> tensor<?x40xf32>
// CHECK-NEXT:     %o_2 = lpu.all_gather %o_1 over 2 : (tensor<?x40xf32>) -> tensor<?x72xf32>
// CHECK-NEXT:     %o_3 = lpu.reshape %o_2 : (tensor<?x72xf32>) -> tensor<?x9x8xf32>
// CHECK-NEXT:     func.return %o_3 : tensor<?x9x8xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module attributes {lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @fused(%x: tensor<?x64xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %w = lpu.weight "weight", "weight", "weight" in "qkv" shards [#lpu.sharding<0, 32 of 64 at [0, 32]>, #lpu.sharding<0, 16 of 80 at [64, 64]>, #lpu.sharding<0, 16 of 96 at [80, 80]>] : tensor<64x64xf16>
// CHECK-NEXT:     %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %r = lpu.reshape %y : (tensor<?x64xf32>) -> tensor<?x1x64xf32>
// CHECK-NEXT:     %q = lpu.slice %r dim 2 from 0 to 32 : (tensor<?x1x64xf32>) -> tensor<?x1x32xf32>
// CHECK-NEXT:     %k = lpu.slice %r dim 2 from 32 to 48 : (tensor<?x1x64xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %v = lpu.slice %r dim 2 from 48 to 64 : (tensor<?x1x64xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %qh = lpu.reshape %q : (tensor<?x1x32xf32>) -> tensor<?x2x16xf32>
// CHECK-NEXT:     %o = lpu.attention %qh, %k, %v slot 0 scale 1.000000e+00 : (tensor<?x2x16xf32>, tensor<?x1x16xf32>, tensor<?x1x16xf32>) -> tensor<?x2x16xf32>
// CHECK-NEXT:     %o_1 = lpu.reshape %o : (tensor<?x2x16xf32>) -> tensor<?x32xf32>
// CHECK-NEXT:     %o_2 = lpu.all_gather %o_1 over 2 : (tensor<?x32xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %o_3 = lpu.reshape %o_2 : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %o_3 : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module attributes {lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @layers(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %q = lpu.reshape %x : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %q_1 = lpu.reshape %q : (tensor<?x4x16xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %q_2 = lpu.select_columns %q_1 : (tensor<?x64xf32>) -> tensor<?x32xf32>
// CHECK-NEXT:     %q_3 = lpu.reshape %q_2 : (tensor<?x32xf32>) -> tensor<?x2x16xf32>
// CHECK-NEXT:     %o = lpu.attention %q_3, %q_3, %q_3 slot 0 scale 1.000000e+00 : (tensor<?x2x16xf32>, tensor<?x2x16xf32>, tensor<?x2x16xf32>) -> tensor<?x2x16xf32>
// CHECK-NEXT:     %y = lpu.reshape %o : (tensor<?x2x16xf32>) -> tensor<?x32xf32>
// CHECK-NEXT:     %a = lpu.silu %y : tensor<?x32xf32>
// CHECK-NEXT:     %a_1 = lpu.all_gather %a over 2 : (tensor<?x32xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %a_2 = lpu.select_columns %a_1 : (tensor<?x64xf32>) -> tensor<?x32xf32>
// CHECK-NEXT:     %b = lpu.silu %a_2 : tensor<?x32xf32>
// CHECK-NEXT:     %b_1 = lpu.all_gather %b over 2 : (tensor<?x32xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %b_1 : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @one_device(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
