// RUN: not hyperdex-opt %s --pipeline 'cse, lpu-fuse-nrm' 2>&1 | filecheck %s --check-prefix=NAME
// RUN: not hyperdex-opt %s -p 'cse{times=2}' 2>&1 | filecheck %s --check-prefix=OPTION
// RUN: not hyperdex-opt %s --pipeline 'cse dce' 2>&1 | filecheck %s --check-prefix=COMMA
// RUN: hyperdex-opt %s --pipeline 'cse, dce, // and no more' --print-pipeline | filecheck %s --check-prefix=PRINT
// Wrong pipelines are one error that shows the place.

func.func @f() {
  func.return
}

// NAME:      error: pipeline, line 1, column 6: no pass 'lpu-fuse-nrm' [HDX0302]
// NAME-NEXT:   cse, lpu-fuse-nrm
// NAME-NEXT:        ^
// NAME-NEXT: hint: did you mean lpu-fuse-norm?

// OPTION:      error: pipeline, line 1, column 5: cse has no option 'times' [HDX0302]
// OPTION-NEXT:   cse{times=2}
// OPTION-NEXT:       ^
// OPTION-NEXT: hint: cse has no options

// COMMA: error: pipeline, line 1, column 5: expected a comma [HDX0302]

// PRINT:      cse,
// PRINT-NEXT: dce
