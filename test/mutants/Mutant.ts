/**
 * A fault that a spec has to notice. `npm run test:mutants` puts each into a copy of the repository and runs its specs
 * there: a fault that no spec notices survives, and shows an assertion that is missing.
 */
export interface Mutant {
  /** What goes wrong with the fault, in a few words. Unique. */
  readonly name: string
  /** The file that gets the fault, below the root of the repository. */
  readonly file: string
  /** Stands exactly once in the file. */
  readonly text: string
  /** Stands there instead. */
  readonly replacement: string
  /** The specs of which one has to fail, below the root of the repository. */
  readonly specs: readonly [string, ...Array<string>]
  /** A part of the name of the one spec that is run of them, where the others take long. */
  readonly only?: string
  /** Why no spec can notice the fault: the changed program does the same. Only for faults that survive. */
  readonly equivalent?: string
}
