// RUN: hyperdex-opt %s -p lower-lpu-to-isa | filecheck %s
// Experts: loops over rows and ranks, each trip with the matrix whose number it fetches; the first rank adds to nothing.

builtin.module attributes {lpu.target = "u55c", lpu.max_length = 8 : i64, lpu.matrix_type = "f16"} {
  func.func @main(%ids: tensor<?xi64>, %positions: tensor<?xi64>) -> tensor<?x7xf32> {
    %t = lpu.weight "embed" : tensor<5x7xf16>
    %x = lpu.embedding %t at %ids : (tensor<5x7xf16>, tensor<?xi64>) -> tensor<?x7xf32>
    %r = lpu.weight "router" : tensor<6x7xf16>
    %s = lpu.linear %x by %r : tensor<?x7xf32>, tensor<6x7xf16> -> tensor<?x6xf32>
    %i = lpu.top_k %s k 2 groups 3 top 2 : (tensor<?x6xf32>) -> tensor<?x2xi64>
    %v = lpu.take_columns %s at %i : (tensor<?x6xf32>, tensor<?x2xi64>) -> tensor<?x2xf32>
    %u = lpu.weight "up" : tensor<6x40x7xf16>
    %ub = lpu.weight "up_bias" : tensor<6x40xf32>
    %h = lpu.expert_linear %x by %u at %i gated bias %ub : tensor<6x40xf32> then silu : tensor<?x7xf32>, tensor<6x40x7xf16>, tensor<?x2xi64> -> tensor<?x20x2xf32>
    %d = lpu.weight "down" : tensor<6x7x20xf16>
    %y = lpu.expert_linear %h by %d at %i sum %v : tensor<?x2xf32> : tensor<?x20x2xf32>, tensor<6x7x20xf16>, tensor<?x2xi64> -> tensor<?x7xf32>
    %w = lpu.select_rows %y : tensor<?x7xf32>
    func.return %w : tensor<?x7xf32>
  }
}

// CHECK: builtin.module attributes {lpu.target = "u55c", lpu.max_length = 8 : i64, lpu.matrix_type = "f16"} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     isa.set dst=r8 value=1
// CHECK-NEXT:     %x = isa.buffer : !isa.lmu<tokens x 7>
// CHECK-NEXT:     isa.embed dst=%x table=hbm[0] index=token ids=hbm[55296] limit=5 columns=7 type=f16 rows=tokens
// CHECK-NEXT:     %s = isa.buffer : !isa.lmu<tokens x 6>
// CHECK-NEXT:     isa.matmul dst=%s src=%x weight=hbm[2048] k=7 n=6 type=f16 rows=tokens
// CHECK-NEXT:     %i = isa.buffer : !isa.lmu<tokens x 2>
// CHECK-NEXT:     isa.top_k dst=%i src=%s columns=6 k=2 groups=3 top_groups=2 rows=tokens
// CHECK-NEXT:     %v = isa.buffer : !isa.lmu<tokens x 2>
// CHECK-NEXT:     isa.take_columns dst=%v src=%s index=%i columns=2 limit=6 rows=tokens
// CHECK-NEXT:     %h = isa.buffer : !isa.lmu<tokens x 40>
// CHECK-NEXT:     isa.set dst=r9 value=0
// CHECK-NEXT:     isa.set dst=r10 value=0
// CHECK-NEXT:     isa.set dst=r15 value=0
// CHECK-NEXT:     isa.repeat_rows tokens {
// CHECK-NEXT:       isa.repeat 2 {
// CHECK-NEXT:         isa.fetch dst=r11 src=%i[r15] limit=6
// CHECK-NEXT:         isa.multiply dst=r12 a=r11 value=160
// CHECK-NEXT:         isa.multiply dst=r11 a=r11 value=6144
// CHECK-NEXT:         isa.matmul dst=%h[r10] src=%x[r9] weight=hbm[4096 + r11] k=7 n=20 type=f16 bias=hbm[40960 + r12] activation=silu rows=r8 gated=1
// CHECK-NEXT:         isa.add dst=r15 a=r15 b=zero value=1
// CHECK-NEXT:         isa.add dst=r10 a=r10 b=zero value=20
// CHECK-NEXT:       }
// CHECK-NEXT:       isa.add dst=r9 a=r9 b=zero value=7
// CHECK-NEXT:     }
// CHECK-NEXT:     %y = isa.buffer : !isa.lmu<tokens x 7>
// CHECK-NEXT:     isa.set dst=r9 value=0
// CHECK-NEXT:     isa.set dst=r10 value=0
// CHECK-NEXT:     isa.set dst=r15 value=0
// CHECK-NEXT:     isa.repeat_rows tokens {
// CHECK-NEXT:       isa.fetch dst=r11 src=%i[r15] limit=6
// CHECK-NEXT:       isa.multiply dst=r11 a=r11 value=2048
// CHECK-NEXT:       %0 = isa.buffer : !isa.lmu<1 x 7>
// CHECK-NEXT:       isa.matmul dst=%0 src=%h[r9] weight=hbm[43008 + r11] k=20 n=7 type=f16 rows=r8
// CHECK-NEXT:       isa.binary function=mul dst=%y[r10] a=%0 b=%v[r15, column 0] columns=7 rows=r8
// CHECK-NEXT:       isa.add dst=r15 a=r15 b=zero value=1
// CHECK-NEXT:       isa.add dst=r9 a=r9 b=zero value=20
// CHECK-NEXT:       isa.fetch dst=r11 src=%i[r15] limit=6
// CHECK-NEXT:       isa.multiply dst=r11 a=r11 value=2048
// CHECK-NEXT:       %1 = isa.buffer : !isa.lmu<1 x 7>
// CHECK-NEXT:       isa.matmul dst=%1 src=%h[r9] weight=hbm[43008 + r11] k=20 n=7 type=f16 rows=r8
// CHECK-NEXT:       isa.binary function=mul dst=%1 a=%1 b=%v[r15, column 0] columns=7 rows=r8
// CHECK-NEXT:       isa.binary function=add dst=%y[r10] a=%y[r10] b=%1 columns=7 rows=r8
// CHECK-NEXT:       isa.add dst=r15 a=r15 b=zero value=1
// CHECK-NEXT:       isa.add dst=r9 a=r9 b=zero value=20
// CHECK-NEXT:       isa.add dst=r10 a=r10 b=zero value=7
// CHECK-NEXT:     }
// CHECK-NEXT:     %w = isa.buffer : !isa.lmu<head x 7>
// CHECK-NEXT:     isa.select_rows dst=%w src=%y first=first_row columns=7 rows=head_rows
// CHECK-NEXT:     isa.store dst=hbm[59392] pitch=28 src=%w columns=7 rows=head_rows
// CHECK-NEXT:     isa.sample dst=next_token src=%w columns=7 rows=head_rows settings=hbm[57344]
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
