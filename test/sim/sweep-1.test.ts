import { sweep } from "../support/sweep.ts"

// In four files, which run side by side.
sweep(1, 25)
