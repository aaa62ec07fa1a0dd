%% `erl -noinput -run bench main WHAT WHERE COUNT`: one measurement of Erlang/OTP, printed as lines `NAME VALUE`. What is measured and how is said in
%% `actors/benches/peers.rs`, which starts this. The workers are gen_servers under a simple_one_for_one supervisor.
-module(bench).
-behaviour(gen_server).
-export([main/1, start_link/1, init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(REST_MS, 1).
-define(SETTLE_MS, 200).
-define(IN_FLIGHT, 64).

%% The worker. Told to greet, it sends itself a message from init/1.
start_link(Greets) -> gen_server:start_link(?MODULE, {worker, Greets}, []).

init({supervisor, Flags, Specs}) -> {ok, {Flags, Specs}};
init({worker, true}) -> self() ! first, {ok, 0};
init({worker, false}) -> {ok, 0}.

handle_call(get, _, N) -> {reply, N, N};
handle_call({echo, X}, _, N) -> {reply, X, N}.

handle_cast({add, A}, N) -> {noreply, N + A};
handle_cast(crash, _) -> ets:insert(clock, {crashed, now_ns()}), error(crash).

handle_info(first, N) ->
    [{crashed, At}] = ets:lookup(clock, crashed),
    driver ! {first, self(), now_ns() - At},
    {noreply, N}.

main([What, _Where, CountText]) ->
    Count = list_to_integer(CountText),
    %% A crash must cost nobody a line on the console.
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    register(driver, self()),
    ets:new(clock, [named_table, public]),
    ets:insert(clock, {crashed, now_ns()}),
    Flags = #{strategy => simple_one_for_one, intensity => 100000000, period => 1},
    Spec = #{id => worker, start => {?MODULE, start_link, []}, restart => permanent},
    {ok, Supervisor} = supervisor:start_link(?MODULE, {supervisor, Flags, [Spec]}),
    measure(What, Count, Supervisor),
    halt().

measure("restart", Count, Supervisor) ->
    {ok, Pid} = supervisor:start_child(Supervisor, [true]),
    receive {first, Pid, _} -> ok end,
    Times = lists:sort(crash(Pid, Count, [])),
    At = fun(Percent) -> lists:nth(max(1, (length(Times) * Percent + 99) div 100), Times) / 1.0e3 end,
    say("restart", At(50)),
    say("restart_p99", At(99));
measure("tell", Count, Supervisor) ->
    Pid = worker(Supervisor),
    {Warm, _} = tell(Pid, Count div 10),
    {All, Took} = tell(Pid, Count),
    All = Warm + Count,
    say("tell", Count * 1.0e9 / Took);
measure("ask", Count, Supervisor) ->
    Pid = worker(Supervisor),
    ask(Pid, Count div 10),
    Began = now_ns(),
    ask(Pid, Count),
    say("ask", Count * 1.0e9 / (now_ns() - Began));
measure("ask64", Count, Supervisor) ->
    Pid = worker(Supervisor),
    Each = Count div ?IN_FLIGHT,
    Began = now_ns(),
    Askers = [spawn_monitor(fun() -> ask(Pid, Each) end) || _ <- lists:seq(1, ?IN_FLIGHT)],
    [receive {'DOWN', Ref, _, _, normal} -> ok end || {_, Ref} <- Askers],
    say("ask64", Each * ?IN_FLIGHT * 1.0e9 / (now_ns() - Began));
measure("start", Count, Supervisor) ->
    erlang:garbage_collect(),
    Resident = resident(),
    Vm = erlang:memory(total),
    Began = now_ns(),
    start(Supervisor, Count),
    say("start", (now_ns() - Began) / 1.0e3),
    timer:sleep(?SETTLE_MS),
    say("memory", (resident() - Resident) / Count),
    say("vm_memory", (erlang:memory(total) - Vm) / Count),
    Stopped = now_ns(),
    Ref = monitor(process, Supervisor),
    exit(Supervisor, shutdown),
    receive {'DOWN', Ref, _, _, shutdown} -> ok end,
    say("stop", (now_ns() - Stopped) / 1.0e3).

worker(Supervisor) ->
    {ok, Pid} = supervisor:start_child(Supervisor, [false]),
    Pid.

start(_, 0) -> ok;
start(Supervisor, Count) ->
    {ok, _} = supervisor:start_child(Supervisor, [false]),
    start(Supervisor, Count - 1).

crash(_, 0, Times) -> Times;
crash(Pid, Count, Times) ->
    gen_server:cast(Pid, crash),
    receive {first, Next, Took} -> timer:sleep(?REST_MS), crash(Next, Count - 1, [Took | Times]) end.

tell(Pid, Count) ->
    Began = now_ns(),
    cast(Pid, Count),
    All = gen_server:call(Pid, get, infinity),
    {All, now_ns() - Began}.

cast(_, 0) -> ok;
cast(Pid, Count) -> gen_server:cast(Pid, {add, 1}), cast(Pid, Count - 1).

ask(_, 0) -> ok;
ask(Pid, Count) ->
    Count = gen_server:call(Pid, {echo, Count}, infinity),
    ask(Pid, Count - 1).

resident() ->
    {ok, Text} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = string:split(binary_to_list(Text), " ", all),
    list_to_integer(Pages) * 4096.

now_ns() -> erlang:monotonic_time(nanosecond).

say(Name, Value) -> io:format("~s ~.3f~n", [Name, float(Value)]).
