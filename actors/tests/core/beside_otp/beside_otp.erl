%% Lives through the histories of beside_otp.rs with OTP's supervisor, and says of each what happened, in one line.
-module(beside_otp).
-export([main/1, init/1, start/1, child/2]).

main([File]) ->
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    log = ets:new(log, [named_table, public, ordered_set]),
    faults = ets:new(faults, [named_table, public]),
    {ok, Text} = file:read_file(File),
    play([string:split(Line, " ", all) || Line <- string:split(binary_to_list(Text), "\n", all), Line =/= ""]).

play([]) -> ok;
play([["supervisor", Strategy, Intensity, AutoShutdown] | Rest]) ->
    {Children, Rest1} = lists:splitwith(fun([Word | _]) -> Word =:= "child" end, Rest),
    {Moves, Rest2} = lists:splitwith(fun([Word | _]) -> Word =:= "move" end, Rest1),
    Flags = #{strategy => list_to_atom(Strategy), intensity => list_to_integer(Intensity), period => 3600,
              auto_shutdown => list_to_atom(AutoShutdown)},
    Specs = [spec(Id, Restart, Significant) || ["child", Id, Restart, Significant] <- Children],
    {ok, Supervisor} = supervisor:start_link(?MODULE, {Flags, Specs}),
    moves(Supervisor, Moves),
    End = case is_process_alive(Supervisor) of
        true -> "end:" ++ [presence(Child) || Child <- lists:reverse(supervisor:which_children(Supervisor))];
        false -> "ended"
    end,
    Log = [Entry || {_, Entry} <- ets:tab2list(log)],
    io:format("~s~n", [string:join(Log ++ [lists:flatten(End)], " ")]),
    exit(Supervisor, shutdown),
    receive {'EXIT', Supervisor, _} -> ok end,
    ets:delete_all_objects(log),
    ets:delete_all_objects(faults),
    play(Rest2).

init({Flags, Specs}) -> {ok, {Flags, Specs}}.

spec(Id, Restart, Significant) ->
    #{id => Id, start => {?MODULE, start, [Id]}, restart => list_to_atom(Restart), significant => list_to_atom(Significant)}.

presence({Id, undefined, _, _}) -> Id ++ "-";
presence({Id, _, _, _}) -> Id ++ "+".

note(Entry) -> ets:insert(log, {erlang:unique_integer([monotonic]), Entry}).

start(Id) ->
    case ets:lookup(faults, Id) of
        [{_, Left}] when Left > 0 ->
            ets:insert(faults, {Id, Left - 1}),
            note("!" ++ Id),
            {error, fault};
        _ ->
            note("+" ++ Id),
            proc_lib:start_link(?MODULE, child, [self(), Id])
    end.

child(Parent, Id) ->
    process_flag(trap_exit, true),
    proc_lib:init_ack(Parent, {ok, self()}),
    receive
        {'EXIT', Parent, shutdown} -> note("-" ++ Id), exit(shutdown);
        crash -> exit(crash);
        finish -> exit(normal)
    end.

moves(_, []) -> ok;
moves(Supervisor, [["move", Move, Id, More] | Rest]) ->
    case is_process_alive(Supervisor) of
        false -> ok;
        true ->
            note("|"),
            try move(list_to_atom(Move), Supervisor, Id, More) catch exit:_ -> gone(Supervisor) end,
            moves(Supervisor, Rest)
    end.

move(faults, _, Id, More) -> ets:insert(faults, {Id, list_to_integer(More)});
move(terminate, Supervisor, Id, _) -> answer(supervisor:terminate_child(Supervisor, Id));
move(restart, Supervisor, Id, _) -> answer(supervisor:restart_child(Supervisor, Id));
move(delete, Supervisor, Id, _) -> answer(supervisor:delete_child(Supervisor, Id));
move(start, Supervisor, Id, Restart) -> answer(supervisor:start_child(Supervisor, spec(Id, Restart, "false")));
move(End, Supervisor, Id, _) ->
    case lists:keyfind(Id, 1, supervisor:which_children(Supervisor)) of
        {_, Pid, _, _} when is_pid(Pid) -> Pid ! End, settle(Supervisor, Pid);
        _ -> ok
    end.

answer(ok) -> note("ok");
answer({ok, _}) -> note("ok");
answer({error, {already_started, _}}) -> note("already_started");
answer({error, Known}) when Known =:= not_found; Known =:= running; Known =:= restarting; Known =:= already_present ->
    note(atom_to_list(Known));
answer({error, _}) -> note("failed").

%% Until the supervisor has heard of the end of Pid, and whatever follows has happened.
settle(Supervisor, Pid) ->
    Moving = fun({_, Child, _, _}) -> Child =:= restarting orelse Child =:= Pid end,
    case lists:any(Moving, supervisor:which_children(Supervisor)) of
        true -> erlang:yield(), settle(Supervisor, Pid);
        false -> ok
    end.

gone(Supervisor) ->
    case is_process_alive(Supervisor) of
        true -> erlang:yield(), gone(Supervisor);
        false -> ok
    end.
