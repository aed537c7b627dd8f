/**
 * The command `codio`, without a process around it: tests run it with arguments of their own.
 */
import { Console, Effect, Layer } from "effect"
import { CliConfig, CliOutput, Command, GlobalFlag } from "effect/cli"
import { version } from "../schema/Agent.ts"
import { printable } from "./print.ts"
import { start } from "./start.ts"

export const codio = Command.make("codio").pipe(
  Command.withDescription("A peer of the Codio network"),
  Command.withSubcommands([start])
)

/**
 * Runs the command. Usage errors, wrong options and a node that cannot start are told in one line on stderr, and fail the effect.
 */
export const run = (args: ReadonlyArray<string>) =>
  Command.runWith(codio, { version })(args).pipe(
    Effect.tapError((error) =>
      // The presenter has told what was wrong with the usage.
      error._tag === "ShowHelp" ? Effect.void : Console.error(`codio: ${printable(startError(error))}`)
    ),
    Effect.provide(presentation)
  )

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const startError = (error: { readonly _tag: string; readonly message: string }): string =>
  error._tag === "ConfigError" ? `cannot start: ${error.message}` : error.message

// effect's own presenter prints the whole help when a flag is wrong.
const presentation = Layer.mergeAll(
  CliOutput.layerPresenter({
    present: (event) =>
      event._tag === "InvalidInvocation"
        ? Console.error(
          `codio: ${printable(event.errors.map((error) => error.message).join("; "))}; see ${
            event.commandPath.join(" ")
          } --help`
        )
        : CliOutput.defaultPresenter.present(event)
  }),
  // Without --wizard, which needs a terminal, and --log-level, whose place --log has.
  CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] })
)
