# What the session's shell runs. It takes records from the command pipe (a sequence number, the FIFO for the
# output, the command, each ended by NUL) and writes "<sequence number> <exit status>" to the status pipe.
# The command can't get at either pipe, its own redirections end with it, and nothing but $__oma is in its way.
# The inner loop reports in its condition, so that a stray `continue` is reported as well; the outer loop
# catches a stray `break`.
#
# The lines are joined to one before they are run: so line numbers in messages are those of the command.
exec 244<&0 245>&1 </dev/null >/dev/null 2>&1;
shopt -s expand_aliases;
__oma=(0);
# Where the shell was when it ended, for the one that takes its place.
trap "\\builtin pwd -P 2>/dev/null >${1@Q}" EXIT;
shift;
while \:; do
  while
    \builtin printf '%s %s\n' "${__oma[0]-}" "$?" >&245;
    IFS= \builtin read -r -d '' -u 244 '__oma[0]' &&
    IFS= \builtin read -r -d '' -u 244 '__oma[1]' &&
    IFS= \builtin read -r -d '' -u 244 '__oma[2]' ||
    \builtin exit 0;
  do
    \builtin eval "${__oma[2]}" </dev/null >"${__oma[1]}" 2>&1 244<&- 245>&-;
  done;
done
