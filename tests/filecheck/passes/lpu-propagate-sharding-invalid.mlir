// RUN: not hyperdex-opt %s -p 'lpu-propagate-sharding{num-device=2},lpu-propagate-sharding' --no-repro 2>&1 | filecheck %s --check-prefix=TWICE
// RUN: not hyperdex-opt %s -p 'lpu-propagate-sharding{num-device=2},lpu-partition,lpu-propagate-sharding' --no-repro 2>&1 | filecheck %s --check-prefix=TWICE
// RUN: not hyperdex-opt %s -p 'lpu-propagate-sharding{num-device=2},lpu-propagate-sharding{num-device=3}' --no-repro 2>&1 | filecheck %s --check-prefix=OTHER
// RUN: not hyperdex-opt %s -p 'lpu-propagate-sharding{num-device=0}' --no-repro 2>&1 | filecheck %s --check-prefix=NONE
// RUN: not hyperdex-opt %s -p 'lpu-propagate-sharding{num-device=1000000000000}' --no-repro 2>&1 | filecheck %s --check-prefix=MANY

func.func @f(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = lpu.weight "a.weight" : tensor<64x64xf16>
  %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}

// TWICE: the module is sharded already
// OTHER: num-device is 3, the module is for 2 devices
// NONE: num-device must be positive
// MANY: num-device is 1000000000000; at most 1024 devices are possible
