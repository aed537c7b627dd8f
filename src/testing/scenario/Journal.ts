/** The events of all nodes of a simulation: the last ones in full, and a digest of all. */
import type { NetworkEvent } from "../../schema/NetworkEvent.ts"

const linesMax = 40

export class Journal {
  size = 0
  private hash = 0x811c9dc5
  private readonly names: ReadonlyMap<string, string>
  private readonly lines = new Map<string, Array<readonly [time: number, event: NetworkEvent]>>()

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

  /** The last events of some nodes, oldest first, one a line. */
  of(nodes: ReadonlyArray<string>): ReadonlyArray<string> {
    return nodes
      .flatMap((name) => (this.lines.get(name) ?? []).map(([time, event]) => ({ time, name, event })))
      .sort((a, b) => a.time - b.time)
      .slice(-linesMax)
      .map(({ event, name, time }) => {
        const text = JSON.stringify(event).replace(/12D3Koo\w+/g, (peer) => this.names.get(peer) ?? peer)
        return `${(time / 1_000).toFixed(3)} s ${name} ${text}`
      })
  }
}
