import type { Mutant } from "./Mutant.ts"

export const cliMutants: ReadonlyArray<Mutant> = []
