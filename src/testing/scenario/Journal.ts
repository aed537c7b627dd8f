/** The steps of a simulation and the events of its nodes: the last ones in full, and a digest of all events. */
import { Duration } from "effect"
import type { NetworkEvent } from "../../schema/NetworkEvent.ts"

const linesMax = 40

export class Journal {
  size = 0
  private hash = 0x811c9dc5
  private readonly names: ReadonlyMap<string, string>
  private readonly lines = new Map<string, Array<readonly [time: number, event: NetworkEvent]>>()
  private readonly steps: Array<readonly [time: number, step: string]> = []

  /** The names of the nodes, by peer id. */
  constructor(names: ReadonlyMap<string, string>) {
    this.names = names
  }

  /** The same for the same events at the same times. */
  get digest(): string {
    return (this.hash >>> 0).toString(16).padStart(8, "0")
  }

  add(time: number, name: string, event: NetworkEvent): void {
    this.size++
    // FNV-1a.
    for (const char of `${time} ${name} ${event._tag} ${"peer" in event ? event.peer : ""}`) {
      this.hash = Math.imul(this.hash ^ char.charCodeAt(0), 0x01000193)
    }
    const lines = this.lines.get(name) ?? []
    this.lines.set(name, lines)
    lines.push([time, event])
    if (lines.length > linesMax) lines.shift()
  }

  /** Notes a step as it begins. */
  begins(time: number, step: string): void {
    this.steps.push([time, step])
    if (this.steps.length > linesMax) this.steps.shift()
  }

  /** The last events of some nodes, oldest first, one a line, and the steps that came between them. */
  of(nodes: ReadonlyArray<string>): ReadonlyArray<string> {
    const events = nodes
      .flatMap((name) => (this.lines.get(name) ?? []).map(([time, event]) => ({ time, name, event })))
      .sort((a, b) => a.time - b.time)
      .slice(-linesMax)
    // The step before the first event that is shown, and all that follow.
    const shown = this.steps.findLastIndex(([time]) => time <= (events[0]?.time ?? Number.POSITIVE_INFINITY))
    const steps = this.steps.slice(Math.max(0, shown)).map(([time, step]) => ({ time, text: `--- ${step}` }))
    const texts = events.map(({ event, name, time }) => {
      const text = show(event).replace(/12D3Koo\w+/g, (peer) => this.names.get(peer) ?? peer)
      return { time, text: `${name} ${event._tag} ${text}` }
    })
    // The sort is stable: a step comes before the events that it causes.
    return [...steps, ...texts].sort((a, b) => a.time - b.time).map(({ text, time }) =>
      `${(time / 1_000).toFixed(3)} s ${text}`
    )
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** An event as JSON, with durations as people read them, to the millisecond. */
const show = ({ _tag, ...event }: NetworkEvent): string =>
  JSON.stringify(
    Object.fromEntries(
      Object.entries(event).map(([key, value]: [string, unknown]) => [
        key,
        Duration.isDuration(value) ? Duration.format(Duration.millis(Math.round(Duration.toMillis(value)))) : value
      ])
    )
  )
