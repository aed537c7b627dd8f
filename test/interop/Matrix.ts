/** Rows of cells: what was checked, between which two peers, and the outcome. */
import { Cause, Clock, Console, Effect, Exit } from "effect"
import type { Kind } from "./Peer.ts"

export type Pair = `${Kind}>${Kind}`

export interface Cell {
  readonly row: string
  readonly pair: Pair
  /** What is shown: a measurement, or just that it holds. */
  readonly text: string
  readonly isGood: boolean
  /** Why not, or what the upstream's fault is. */
  readonly detail?: string
}

/** A fault of an upstream, and the failure of a check that meets it. */
export interface Fault {
  readonly name: string
  readonly shows: RegExp
  /** Whether the fault shows only sometimes, so that a check may hold in spite of it. */
  readonly isChance?: boolean
}

export interface Matrix {
  /**
   * Runs one check. With a fault of an upstream it must fail as the fault shows, which then counts as shown; a check
   * that holds in spite of it fails, since the fault is mended.
   */
  readonly check: <A>(row: string, pair: Pair, test: Effect.Effect<A, Error>, fault?: Fault) => Effect.Effect<void>
  readonly cells: ReadonlyArray<Cell>
  /** Adds cells of another matrix. */
  readonly add: (cells: ReadonlyArray<Cell>) => void
}

export const make = (): Matrix => {
  const cells: Array<Cell> = []
  return {
    cells,
    add: (others) => void cells.push(...others),
    check: Effect.fnUntraced(function*(row, pair, test, fault) {
      const began = yield* Clock.currentTimeMillis
      const exit = yield* Effect.exit(Effect.timeout(test, "150 seconds"))
      if (Exit.hasInterrupts(exit)) return yield* Effect.interrupt
      const millis = (yield* Clock.currentTimeMillis) - began
      const why = Exit.isSuccess(exit) ? "" : (Cause.squash(exit.cause) as Error).message
      const cell: Cell = Exit.isSuccess(exit)
        ? fault === undefined || fault.isChance === true
          ? { row, pair, isGood: true, text: typeof exit.value === "string" ? exit.value : `${millis} ms` }
          : { row, pair, isGood: false, text: "mended", detail: `holds, in spite of: ${fault.name}` }
        : fault !== undefined && fault.shows.test(why)
        ? { row, pair, isGood: true, text: "fault", detail: fault.name }
        : { row, pair, isGood: false, text: "FAILED", detail: why }
      cells.push(cell)
      if (!cell.isGood) yield* Console.log(`FAILED  ${row}, ${pair}: ${cell.detail}`)
    })
  }
}

const columns: ReadonlyArray<Pair> = [
  "ts>ts",
  "ts>rust",
  "ts>go",
  "rust>ts",
  "rust>rust",
  "rust>go",
  "go>ts",
  "go>rust",
  "go>go"
]

/** The matrix as a table, and the upstreams' faults below it. */
export const print = ({ cells }: Matrix): string => {
  const rows = [...new Set(cells.map(({ row }) => row))]
  const table = [["", ...columns.map((pair) => pair.replace(">", " > "))]]
  for (const row of rows) {
    table.push([
      row,
      ...columns.map((pair) => {
        const found = cells.filter((cell) => cell.row === row && cell.pair === pair)
        return [...new Set(found.map(({ text }) => text))].join("/")
      })
    ])
  }
  const widths = table[0]!.map((_, column) => Math.max(...table.map((line) => line[column]!.length)))
  const lines = table.map((line) =>
    line.map((text, column) => column === 0 ? text.padEnd(widths[column]!) : text.padStart(widths[column]!)).join("  ")
  )
  const faults = new Map<string, Array<string>>()
  for (const { detail, pair, row, text } of cells) {
    if (text === "fault") faults.set(detail!, [...faults.get(detail!) ?? [], `${row}, ${pair}`])
  }
  return [
    ...lines,
    "",
    ...[...faults].map(([fault, where]) => `fault: ${fault} (${where.join("; ")})`)
  ].join("\n")
}
