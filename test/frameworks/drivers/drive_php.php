<?php
// Does as it is told, one line of standard input after the other, with what the page
// defines for the one or the other extension.
$extension = $argv[1];
require "./$extension.php";
if (in_array('bound', $argv)) {
    require "./bound_$extension.php";
}
$sessions = [];
while (($line = fgets(STDIN)) !== false) {
    [$verb, $name, $id] = explode(' ', trim($line));
    $sessions[$name] ??= [];
    try {
        if ($verb === 'write') {
            write($sessions[$name], (int) $id);
            echo "ok\n";
        } else {
            echo read($sessions[$name], (int) $id), "\n";
        }
    } catch (PDOException $error) {
        echo "error {$error->getCode()}\n";
    } catch (RuntimeException $error) {
        echo "error {$error->getMessage()}\n";
    }
}
