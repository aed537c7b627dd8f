/**
 * Figures of several kinds, as a table: median, 95th percentile, ratio to plain js-libp2p, and whether the aim is met.
 */
import type { Kind } from "./BenchNode.ts"

export interface Aim {
  /** The figure. */
  readonly of: string
  /** At most this part of what plain js-libp2p takes. */
  readonly ratio?: number
  /** At most so much. */
  readonly most?: number
  /** The figure of plain js-libp2p to compare with, where it has another name. */
  readonly against?: string
}

export interface Report {
  readonly add: (kind: Kind, of: string, value: number) => void
  readonly table: (kinds: ReadonlyArray<Kind>, aims: ReadonlyArray<Aim>) => string
}

export const make = (): Report => {
  const figures = new Map<string, Map<Kind, Array<number>>>()
  const middle = (of: string, kind: Kind): number | undefined => {
    const found = figures.get(of)?.get(kind)
    return found === undefined ? undefined : percentile(found, 0.5)
  }
  return {
    add: (kind, of, value) => {
      const kinds = figures.get(of) ?? new Map<Kind, Array<number>>()
      figures.set(of, kinds.set(kind, [...kinds.get(kind) ?? [], value]))
    },
    table: (kinds, aims) => {
      const lines = [["", ...kinds, kinds.includes("plain") && kinds.includes("ours") ? "ours / plain" : "", ""]]
      for (const [of, found] of figures) {
        const aim = aims.find((aim) => aim.of === of)
        const [was, is] = [middle(aim?.against ?? of, "plain"), middle(of, "ours")]
        const ratio = was === undefined || is === undefined ? undefined : is / was
        lines.push([
          of,
          ...kinds.map((kind) => {
            const values = found.get(kind)
            return values === undefined ? "" : `${show(percentile(values, 0.5))} / ${show(percentile(values, 0.95))}`
          }),
          ratio === undefined ? "" : ratio === 0 ? "0" : `1/${(1 / ratio).toFixed(1)}`,
          // Without plain js-libp2p there is no ratio, and nothing to say of the aim.
          aim === undefined || is === undefined || (aim.ratio !== undefined && ratio === undefined)
            ? ""
            : judge(aim, is, ratio)
        ])
      }
      const widths = lines[0]!.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)))
      const last = widths.length - 1
      return lines.map((line) =>
        `  ${
          line.map((text, column) =>
            column === 0 || column === last ? text.padEnd(widths[column]!) : text.padStart(widths[column]!)
          ).join("  ")
        }`.trimEnd()
      ).join("\n")
    }
  }
}

/** How many aims there were, and were met. */
export const verdict = (): string => `${met} of ${judged} aims met`

// internal ------------------------------------------------------------------------------------------------------------

let judged = 0
let met = 0

function judge({ most, ratio: part }: Aim, is: number, ratio: number | undefined): string {
  const isMet = (most === undefined || is <= most) && (part === undefined || (ratio !== undefined && ratio <= part))
  judged++
  if (isMet) met++
  const aim = [
    ...part === undefined ? [] : [`1/${Math.round(1 / part)}`],
    ...most === undefined ? [] : [String(most)]
  ].join(" and ")
  return `${isMet ? "met" : "NOT MET"}: at most ${aim}`
}

function percentile(values: ReadonlyArray<number>, part: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]!
}

function show(value: number): string {
  return value === Number.POSITIVE_INFINITY ? "never" : value >= 100 ? value.toFixed(0) : value.toFixed(1)
}
