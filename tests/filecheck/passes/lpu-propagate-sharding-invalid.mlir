// RUN: not hyperdex-opt %s -p 'lpu-propagate-sharding,lpu-propagate-sharding' --no-repro 2>&1 | filecheck %s --check-prefix=TWICE
// RUN: not hyperdex-opt %s -p 'lpu-propagate-sharding,lpu-partition,lpu-propagate-sharding' --no-repro 2>&1 | filecheck %s --check-prefix=TWICE

builtin.module attributes {lpu.grid = #lpu.grid<2>} {
func.func @f(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = lpu.weight "a.weight" : tensor<64x64xf16>
  %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
}

// TWICE: the module is sharded already
