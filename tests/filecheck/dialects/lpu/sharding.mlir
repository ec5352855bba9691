// RUN: hyperdex-opt %s | hyperdex-opt | filecheck %s
// RUN: hyperdex-opt %s --print-op-generic | hyperdex-opt | filecheck %s
// What several devices add to the dialect, in custom and in generic form.

builtin.module attributes {lpu.grid = #lpu.grid<4>} {
  func.func @annotated(%x: tensor<?x64xf32>) {
    %w = lpu.weight "a.weight" {lpu.sharding = #lpu.sharding<0, 3 of 9 at [0, 3, 6, 9], 2 of 12 at [9, 9, 10, 11]>} : tensor<12x64xf16>
    %y = lpu.linear %x by %w {lpu.sharding = #lpu.sharding<1, 3 of 9 at [0, 3, 6, 9], 2 of 12 at [9, 9, 10, 11]>} : tensor<?x64xf32>, tensor<12x64xf16> -> tensor<?x12xf32>
    func.return
  }
  func.func @partitioned(%x: tensor<?x64xf32>, %q: tensor<?x3x16xf32>, %k: tensor<?x2x16xf32>) {
    %t = lpu.weight "table" shards [#lpu.sharding<1, 16 of 64 at [0, 16, 32, 48]>] : tensor<100x16xf16>
    %b = lpu.weight "a.bias" shards [#lpu.sharding<0, 3 of 9 at [0, 3, 6, 9]>] {note} : tensor<3xf32>
    %w = lpu.weight "a.weight", "b.weight" in "m" shards [#lpu.sharding<0, 3 of 9 at [0, 3, 6, 9]>, #lpu.sharding<0, 3 of 9 at [0, 3, 6, 9]>] : tensor<6x64xf16>
    %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<6x64xf16> -> tensor<?x6xf32>
    %g = lpu.all_gather %y over 4 : (tensor<?x6xf32>) -> tensor<?x21xf32>
    %h = lpu.all_gather %y, %y over 4 {note} : (tensor<?x6xf32>, tensor<?x6xf32>) -> tensor<?x45xf32>
    %s = lpu.select_columns %h : (tensor<?x45xf32>) -> tensor<?x12xf32>
    %o = lpu.attention %q, %k, %k slot 0 scale 2.500000e-01 window 5 kv_heads "kv_heads.9.4" [0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0] : (tensor<?x3x16xf32>, tensor<?x2x16xf32>, tensor<?x2x16xf32>) -> tensor<?x3x16xf32>
    func.return
  }
}

// CHECK:      builtin.module attributes {lpu.grid = #lpu.grid<4>} {
// CHECK-NEXT:   func.func @annotated(%x: tensor<?x64xf32>) {
// CHECK-NEXT:     %w = lpu.weight "a.weight" {lpu.sharding = #lpu.sharding<0, 3 of 9 at [0, 3, 6, 9], 2 of 12 at [9, 9, 10, 11]>} : tensor<12x64xf16>
// CHECK-NEXT:     %y = lpu.linear %x by %w {lpu.sharding = #lpu.sharding<1, 3 of 9 at [0, 3, 6, 9], 2 of 12 at [9, 9, 10, 11]>} : tensor<?x64xf32>, tensor<12x64xf16> -> tensor<?x12xf32>
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @partitioned(%x: tensor<?x64xf32>, %q: tensor<?x3x16xf32>, %k: tensor<?x2x16xf32>) {
// CHECK-NEXT:     %t = lpu.weight "table" shards [#lpu.sharding<1, 16 of 64 at [0, 16, 32, 48]>] : tensor<100x16xf16>
// CHECK-NEXT:     %b = lpu.weight "a.bias" shards [#lpu.sharding<0, 3 of 9 at [0, 3, 6, 9]>] {note} : tensor<3xf32>
// CHECK-NEXT:     %w = lpu.weight "a.weight", "b.weight" in "m" shards [#lpu.sharding<0, 3 of 9 at [0, 3, 6, 9]>, #lpu.sharding<0, 3 of 9 at [0, 3, 6, 9]>] : tensor<6x64xf16>
// CHECK-NEXT:     %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<6x64xf16> -> tensor<?x6xf32>
// CHECK-NEXT:     %g = lpu.all_gather %y over 4 : (tensor<?x6xf32>) -> tensor<?x21xf32>
// CHECK-NEXT:     %h = lpu.all_gather %y, %y over 4 {note} : (tensor<?x6xf32>, tensor<?x6xf32>) -> tensor<?x45xf32>
// CHECK-NEXT:     %s = lpu.select_columns %h : (tensor<?x45xf32>) -> tensor<?x12xf32>
// CHECK-NEXT:     %o = lpu.attention %q, %k, %k slot 0 scale 2.500000e-01 window 5 kv_heads "kv_heads.9.4" [0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0] : (tensor<?x3x16xf32>, tensor<?x2x16xf32>, tensor<?x2x16xf32>) -> tensor<?x3x16xf32>
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
