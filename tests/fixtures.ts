/** A fake of any AWS client, for tests. */

type Input = Record<string, unknown>;

/** Of a command: its answers in order and `{}` after them, or a function. An error is thrown. */
export type Answers = Record<string, object[] | ((input: Input) => object | Promise<object>)>;

/** A client that answers each kind of command, by the command's name, and keeps the calls. */
export function fakeClient(answers: Answers) {
  const calls: { name: string; input: Input }[] = [];
  const send = async (
    command: { constructor: { name: string }; input: Input },
    { abortSignal }: { abortSignal?: AbortSignal } = {},
  ) => {
    abortSignal?.throwIfAborted();
    const { name } = command.constructor;
    calls.push({ name, input: command.input });
    const given = answers[name];
    const answer = typeof given === "function" ? await given(command.input) : given?.shift() ?? {};
    if (answer instanceof Error) throw answer;
    return answer;
  };
  return { send, calls };
}
